"""The CustomResourceDefinition of ServingDeployment: `python -m serving_contract.crd` prints it.

Generated from the models, so that what Python refuses and what the API server refuses cannot
drift apart, and `kubectl explain` reads the docstrings of the fields. No time and no version of
ours is in it: the same models give the same bytes.
"""

from __future__ import annotations

import sys
from typing import Final

import yaml

from serving_contract.deployment import ServingDeployment, Spec
from serving_contract.fields import NAME_PATTERN
from serving_contract.kubernetes import (
    APP_LABEL_PREFIX,
    APP_NAME,
    GROUP,
    KIND,
    MAX_NAME_LENGTH,
    PLURAL,
    SHORT_NAME,
    SINGULAR,
    VERSION,
)
from serving_contract.status import Status
from serving_contract.structural import Schema, structural_schema, without_defaults

CATEGORY: Final = "serving"
MAX_BYTES: Final = 256 * 1024
"""Above it `kubectl apply` cannot keep the object in its annotation."""

_HEADER: Final = """\
# Generated from runtime/serving_contract by `make manifests`; change the models there, not this.
"""
_COLUMNS: Final = (
    ("Model", "string", ".spec.model.uri", 0),
    ("DP", "integer", ".spec.parallelism.dataParallelSize", 0),
    ("TP", "integer", ".spec.parallelism.tensorParallelSize", 0),
    ("Ready", "string", ".status.ready", 0),
    ("Available", "string", '.status.conditions[?(@.type=="Available")].status', 0),
    ("Degraded", "string", '.status.conditions[?(@.type=="Degraded")].reason', 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Devices", "integer", ".status.deviceCount", 1),
    ("Resource", "string", ".spec.devices.resourceName", 1),
    ("URL", "string", ".status.url", 1),
)
_SCALE: Final[Schema] = {
    "specReplicasPath": ".spec.parallelism.dataParallelSize",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}


class _Dumper(yaml.SafeDumper):
    """Writes every value where it stands: an alias saves bytes and costs the reader."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def definition() -> Schema:
    """Return the CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{PLURAL}.{GROUP}",
            "labels": {f"{APP_LABEL_PREFIX}name": APP_NAME},
        },
        "spec": {
            "group": GROUP,
            "names": _names(),
            "scope": "Namespaced",
            "versions": [_version()],
        },
    }


def to_yaml() -> str:
    """Return it as the file that is installed."""
    text: str = yaml.dump(
        definition(), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True
    )
    return _HEADER + text


def _names() -> Schema:
    return {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": SINGULAR,
        "shortNames": [SHORT_NAME],
        "categories": [CATEGORY],
    }


def _version() -> Schema:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}, "scale": _SCALE},
        "additionalPrinterColumns": [
            _column(name, kind, path, priority) for name, kind, path, priority in _COLUMNS
        ],
        "schema": {"openAPIV3Schema": _schema()},
    }


def _column(name: str, kind: str, path: str, priority: int) -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path}
    return {**column, "priority": priority} if priority else column


def _schema() -> Schema:
    return {
        "type": "object",
        "description": ServingDeployment.__doc__,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": _name()}},
            "spec": structural_schema(Spec),
            "status": without_defaults(structural_schema(Status)),
        },
    }


def _name() -> Schema:
    """A rule at the root could check it too, but its refusal would name no field."""
    return {"type": "string", "maxLength": MAX_NAME_LENGTH, "pattern": f"^{NAME_PATTERN}$"}


if __name__ == "__main__":
    sys.stdout.write(to_yaml())
