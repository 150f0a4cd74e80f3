"""The replica pod: one model copy on `tp` devices."""

from __future__ import annotations

from typing import Final

from serving_contract.deployment import Spec
from serving_contract.kubernetes import (
    CPU_RESOURCE,
    ENGINE_CONTAINER,
    LABEL_REPLICA_INDEX,
    LABEL_REVISION,
    REPLICA,
)
from serving_operator import naming
from serving_operator.body import Body, fields
from serving_operator.engines import (
    CLAIM,
    ENGINES,
    HUB,
    MODEL_MOUNT,
    EngineRow,
    arguments,
    model_path,
    model_revision,
)
from serving_operator.overlay import lay_over
from serving_operator.resources import pods
from serving_operator.settings import Images
from serving_operator.subject import Subject

_SHARED_MEMORY_MIB: Final = 2048
_SHARED_MEMORY_CPU_MIB: Final = 256
_HUB_CACHE: Final = "/cache/huggingface"
_HUB_VOLUME: Final = "hf-cache"
_ENV_OF_OURS: Final = (
    "MODEL_PATH",
    "MODEL_REVISION",
    "HF_HOME",
    "SERVED_MODEL_NAME",
    "TENSOR_PARALLEL_SIZE",
    "REPLICA_INDEX",
    "POD_IP",
)
_ONE_DAY_OF_SECONDS: Final = 86_400


def replica_pod(subject: Subject, index: int, images: Images) -> Body:
    """Return the pod of one replica.

    Raises:
        TemplateInvalid: `template` may not be laid over it.
    """
    pod = _laid_over(subject, _pod_template(subject, index, images))
    metadata = dict(fields(pod, "metadata"))
    name = naming.replica_pod(subject.name, index)
    own = subject.metadata(name, REPLICA)
    labels = {**fields(metadata, "labels"), **_labels(subject, index)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        **pod,
        "metadata": {**metadata, **own, "labels": labels},
    }


def _labels(subject: Subject, index: int) -> dict[str, str]:
    return {
        **naming.labels(subject.name, REPLICA),
        LABEL_REPLICA_INDEX: str(index),
        LABEL_REVISION: subject.revision,
    }


def _laid_over(subject: Subject, ours: Body) -> Body:
    resource = subject.spec.devices.resource_name
    resources = [] if resource == CPU_RESOURCE else [resource]
    protected: list[tuple[str, ...]] = [("env", name) for name in _ENV_OF_OURS]
    protected += [
        ("resources", kind, name) for kind in ("limits", "requests") for name in resources
    ]
    template: Body = dict(subject.spec.template or {})
    return lay_over(ours, template, container=ENGINE_CONTAINER, protected=protected)


def _pod_template(subject: Subject, index: int, images: Images) -> Body:
    spec = subject.spec
    pod = pods.pod_spec(_engine(subject, index, images), spec=spec, volumes=_volumes(spec))
    return {
        "metadata": {"labels": _labels(subject, index)},
        "spec": {**pod, "automountServiceAccountToken": False},
    }


def _engine(subject: Subject, index: int, images: Images) -> Body:
    spec = subject.spec
    row = ENGINES[spec.engine.kind]
    engine = pods.container(
        ENGINE_CONTAINER,
        image=spec.engine.image or _default_image(spec, images),
        env=_environment(subject, index, row),
        mounts=_mounts(spec),
        read_only_root=row.read_only_root,
    )
    if row.command is not None:
        engine["command"] = list(row.command)
    if words := arguments(spec, subject.served_name):
        engine["args"] = words
    return {**engine, "resources": _resources(spec), **_probes(row)}


def _default_image(spec: Spec, images: Images) -> str:
    return images.engine_cpu if spec.devices.resource_name == CPU_RESOURCE else images.engine


def _environment(subject: Subject, index: int, row: EngineRow) -> list[Body]:
    spec, uri = subject.spec, subject.spec.model.uri
    values = {
        "MODEL_PATH": model_path(uri),
        "SERVED_MODEL_NAME": subject.served_name,
        "TENSOR_PARALLEL_SIZE": str(subject.tp),
        "REPLICA_INDEX": str(index),
        "HOME": "/tmp",  # noqa: S108 - an emptyDir of the pod's own
        **row.environment(subject.dp),
    }
    if revision := model_revision(uri):
        values["MODEL_REVISION"] = revision
    if uri.startswith(HUB):
        values["HF_HOME"] = _HUB_CACHE
    if spec.devices.resource_name == CPU_RESOURCE:
        values |= pods.no_devices()
    return [*pods.environment(values), _pod_ip(), *_token(spec)]


def _pod_ip() -> Body:
    return {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def _token(spec: Spec) -> list[Body]:
    secret = spec.model.secret_name
    if secret is None:
        return []
    reference = {"secretKeyRef": {"name": secret, "key": "token"}}
    return [{"name": "HF_TOKEN", "valueFrom": reference}]


def _resources(spec: Spec) -> Body:
    requests: Body = {"memory": _shared_memory(spec)}
    if spec.devices.resource_name == CPU_RESOURCE:
        return {"requests": requests}
    devices = {spec.devices.resource_name: str(spec.parallelism.tensor_parallel_size)}
    return {"limits": devices, "requests": {**requests, **devices}}


def _shared_memory(spec: Spec) -> str:
    is_cpu = spec.devices.resource_name == CPU_RESOURCE
    mib = _SHARED_MEMORY_CPU_MIB if is_cpu else _SHARED_MEMORY_MIB
    return f"{mib * spec.parallelism.tensor_parallel_size}Mi"


def _probes(row: EngineRow) -> Body:
    return {
        # Weights may take as long as they take; the operator's StartupTimeout speaks instead.
        "startupProbe": pods.http_probe(
            row.ready_path, periodSeconds=1, failureThreshold=_ONE_DAY_OF_SECONDS
        ),
        "readinessProbe": pods.http_probe(
            row.ready_path, periodSeconds=2, timeoutSeconds=5, failureThreshold=3
        ),
        "livenessProbe": pods.http_probe(
            row.health_path, periodSeconds=10, timeoutSeconds=5, failureThreshold=6
        ),
    }


def _mounts(spec: Spec) -> list[Body]:
    mounts: list[Body] = [{"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108
    if spec.model.uri.startswith(CLAIM):
        mounts.append({"name": "model", "mountPath": MODEL_MOUNT, "readOnly": True})
    if spec.model.uri.startswith(HUB):
        mounts.append({"name": _HUB_VOLUME, "mountPath": _HUB_CACHE})
    return mounts


def _volumes(spec: Spec) -> list[Body]:
    shared = {"medium": "Memory", "sizeLimit": _shared_memory(spec)}
    volumes: list[Body] = [{"name": "shm", "emptyDir": shared}]
    uri = spec.model.uri
    if uri.startswith(CLAIM):
        claim = uri.removeprefix(CLAIM).partition("/")[0]
        source = {"claimName": claim, "readOnly": True}
        volumes.append({"name": "model", "persistentVolumeClaim": source})
    if uri.startswith(HUB):
        volumes.append({"name": _HUB_VOLUME, "emptyDir": {}})
    return volumes
