"""The router's Deployment and what it may do: read EndpointSlices, nothing else."""

from __future__ import annotations

from typing import Final

from serving_contract.deployment import Router
from serving_contract.kubernetes import PORT, ROUTER, ROUTER_CONTAINER
from serving_operator import naming
from serving_operator.body import Body, fields
from serving_operator.errors import TemplateInvalid
from serving_operator.overlay import lay_over
from serving_operator.resources import pods
from serving_operator.settings import Images
from serving_operator.subject import Subject

DEFAULT_REPLICAS: Final = 2
_API_KEYS: Final = "/etc/ascend-serving/api-keys"
_TLS: Final = "/etc/ascend-serving/tls"


def deployment(subject: Subject, images: Images, live_replicas: int | None) -> Body:
    """Return the router's Deployment.

    Args:
        subject: the ServingDeployment.
        images: the operator's.
        live_replicas: what the Deployment has now, which an autoscaler may own; None = none yet.

    Raises:
        TemplateInvalid: `router.template` may not be laid over its pod.
    """
    wanted = subject.spec.router.replicas
    if wanted is None:
        wanted = DEFAULT_REPLICAS if live_replicas is None else live_replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": subject.metadata(naming.router(subject.name), ROUTER),
        "spec": {
            "replicas": wanted,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": naming.selector(subject.name, ROUTER)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "template": pod_template(subject, images),
        },
    }


def pod_template(subject: Subject, images: Images) -> Body:
    """Return the template of the router's pods.

    Raises:
        TemplateInvalid: `router.template` may not be laid over it.
    """
    router = subject.spec.router
    pod = pods.pod_spec(_container(subject, images), spec=subject.spec, volumes=_volumes(router))
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": naming.selector(subject.name, ROUTER)},
    }
    ours = {
        "metadata": {"labels": naming.labels(subject.name, ROUTER)},
        "spec": {
            **pod,
            "serviceAccountName": naming.router(subject.name),
            "topologySpreadConstraints": [spread],
        },
    }
    template: Body = dict(router.template or {})
    try:
        laid = lay_over(ours, template, container=ROUTER_CONTAINER, protected=())
    except TemplateInvalid as error:
        raise TemplateInvalid(f"router.{error}") from error
    return {"metadata": dict(fields(laid, "metadata")), "spec": dict(fields(laid, "spec"))}


def dry_run_pod(subject: Subject, images: Images) -> Body:
    """Return a pod as the Deployment would make it, to ask the API server about."""
    template = pod_template(subject, images)
    name = f"{naming.router(subject.name)}-check"
    metadata = {**fields(template, "metadata"), "name": name, "namespace": subject.namespace}
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata}


def _container(subject: Subject, images: Images) -> Body:
    router = subject.spec.router
    values = {"HOME": "/tmp", **pods.no_devices()}  # noqa: S108 - an emptyDir of the pod's own
    container = pods.container(
        ROUTER_CONTAINER,
        image=router.image or images.router,
        env=pods.environment(values),
        mounts=_mounts(router),
        read_only_root=True,
    )
    return {
        **container,
        "command": ["ascend-serving", "router"],
        "args": _arguments(subject),
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        **_probes("HTTP" if router.tls_secret_name is None else "HTTPS"),
    }


def _arguments(subject: Subject) -> list[str]:
    router = subject.spec.router
    flags = {
        "--service": naming.replicas(subject.name),
        "--namespace": subject.namespace,
        "--host": "0.0.0.0",
        "--port": str(PORT),
        "--served-model-name": subject.served_name,
        "--policy": router.policy.value,
        "--max-pending-tokens-per-replica": str(router.max_pending_tokens_per_replica),
        "--drain-timeout": str(subject.spec.rollout.drain_timeout_seconds),
        "--log-format": "json",
    }
    if affinity := router.session_affinity:
        flags["--session-affinity-header"] = affinity.header
        flags["--session-affinity-ttl-seconds"] = str(affinity.ttl_seconds)
    if router.api_keys_secret_name:
        flags["--api-keys-dir"] = _API_KEYS
    if router.tls_secret_name:
        flags |= {"--tls-cert": f"{_TLS}/tls.crt", "--tls-key": f"{_TLS}/tls.key"}
    return [pods.literal(word) for pair in flags.items() for word in pair]


def _probes(scheme: str) -> Body:
    return {
        "startupProbe": pods.http_probe(
            "/health", scheme=scheme, periodSeconds=1, failureThreshold=600
        ),
        "readinessProbe": pods.http_probe(
            "/health", scheme=scheme, periodSeconds=2, timeoutSeconds=5, failureThreshold=3
        ),
        "livenessProbe": pods.http_probe(
            "/health", scheme=scheme, periodSeconds=10, timeoutSeconds=5, failureThreshold=6
        ),
    }


def _secrets(router: Router) -> dict[str, tuple[str, str]]:
    secrets = {
        "api-keys": (router.api_keys_secret_name, _API_KEYS),
        "tls": (router.tls_secret_name, _TLS),
    }
    return {volume: (name, path) for volume, (name, path) in secrets.items() if name is not None}


def _mounts(router: Router) -> list[Body]:
    return [
        {"name": volume, "mountPath": path, "readOnly": True}
        for volume, (_, path) in _secrets(router).items()
    ]


def _volumes(router: Router) -> list[Body]:
    """Optional, so that a router without its Secret ends and says so.

    A pod whose volume cannot be mounted only waits, and the words are in an Event alone.
    """
    return [
        {"name": volume, "secret": {"secretName": name, "optional": True}}
        for volume, (name, _) in _secrets(router).items()
    ]


def service_account(subject: Subject) -> Body:
    """Return the account that the router's pods run as."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": subject.metadata(naming.router(subject.name), ROUTER),
    }


def role(subject: Subject) -> Body:
    """Return the router's only right."""
    rule = {
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "verbs": ["get", "list", "watch"],
    }
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": subject.metadata(naming.router(subject.name), ROUTER),
        "rules": [rule],
    }


def role_binding(subject: Subject) -> Body:
    """Return what gives the right to the account."""
    name = naming.router(subject.name)
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": subject.metadata(name, ROUTER),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": subject.namespace}],
    }
