"""Small definitions of kinds that other projects define: the fields that the chart may use.

Of ServiceMonitor (monitoring.coreos.com/v1) and ScaledObject (keda.sh/v1alpha1) only what their
own references document under these names, so that a misspelt field is refused under
`fieldValidation=Strict`. A cluster that has the real ones keeps them.
"""

from __future__ import annotations

from typing import Final

from tests.cluster.api import Api, Body
from tests.contract.custom_resource import CRDS, install_crd

_TEXT: Final[Body] = {"type": "string"}
_NUMBER: Final[Body] = {"type": "integer"}
_TEXTS: Final[Body] = {"type": "array", "items": _TEXT}
_LABELS: Final[Body] = {"type": "object", "additionalProperties": _TEXT}
_FREE: Final[Body] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _object(**properties: Body) -> Body:
    return {"type": "object", "properties": properties}


def _list(of: Body) -> Body:
    return {"type": "array", "items": of}


def _definition(group: str, version: str, kind: str, spec: Body) -> Body:
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": _object(spec=spec)}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }


SERVICE_MONITOR: Final = _definition(
    "monitoring.coreos.com",
    "v1",
    "ServiceMonitor",
    _object(
        selector=_object(matchLabels=_LABELS),
        namespaceSelector=_object(any={"type": "boolean"}, matchNames=_TEXTS),
        endpoints=_list(
            _object(
                port=_TEXT,
                path=_TEXT,
                interval=_TEXT,
                relabelings=_list(_object(sourceLabels=_TEXTS, targetLabel=_TEXT)),
            )
        ),
    ),
)
SCALED_OBJECT: Final = _definition(
    "keda.sh",
    "v1alpha1",
    "ScaledObject",
    _object(
        scaleTargetRef=_object(apiVersion=_TEXT, kind=_TEXT, name=_TEXT),
        minReplicaCount=_NUMBER,
        maxReplicaCount=_NUMBER,
        triggers=_list(_object(type=_TEXT, metricType=_TEXT, metadata=_LABELS)),
        advanced=_object(horizontalPodAutoscalerConfig=_object(behavior=_FREE)),
    ),
)


def install_stand_in(api: Api, definition: Body) -> None:
    """Make a kind known, unless the cluster knows it."""
    if not api.exists(f"{CRDS}/{definition['metadata']['name']}"):
        install_crd(api, definition)
