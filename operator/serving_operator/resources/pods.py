"""What replica and router pods have in common: security, scratch space, probes, drain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from serving_contract.deployment import Spec
from serving_contract.kubernetes import ASCEND_VISIBLE_DEVICES, PORT, PORT_NAME
from serving_operator.body import Body

PRE_STOP_S: Final = 5
"""Until every router has seen that the pod terminates; it still accepts meanwhile."""
AFTER_DRAIN_S: Final = 10
"""Of the grace: the preStop sleep, and the time to end what is left with a typed error."""
USER: Final = 1000
"""Also the group HwHiAiUser that owns /dev/davinci* on Ascend hosts."""


def grace_s(spec: Spec) -> int:
    """Return the pod's terminationGracePeriodSeconds."""
    return spec.rollout.drain_timeout_seconds + AFTER_DRAIN_S


def environment(values: Mapping[str, str]) -> list[Body]:
    """Return variables with plain values."""
    return [{"name": name, "value": literal(value)} for name, value in values.items()]


def literal(value: str) -> str:
    """Keep Kubernetes from expanding `$(NAME)` in what a user did not mean that way."""
    return value.replace("$", "$$")


def no_devices() -> dict[str, str]:
    """Return the variable by which Ascend Docker Runtime gives a pod nothing."""
    return {ASCEND_VISIBLE_DEVICES: "void"}


def container(
    name: str,
    *,
    image: str,
    env: list[Body],
    mounts: list[Body],
    read_only_root: bool,
) -> Body:
    """Return what every main container has; command, probes and resources are the caller's."""
    return {
        "name": name,
        "image": image,
        "env": env,
        "ports": [{"name": PORT_NAME, "containerPort": PORT}],
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_S}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": read_only_root,
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *mounts],  # noqa: S108
    }


def pod_spec(main: Body, *, spec: Spec, volumes: list[Body]) -> Body:
    """Return a pod's spec around its main container."""
    return {
        "containers": [main],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
        "terminationGracePeriodSeconds": grace_s(spec),
        "restartPolicy": "Always",
        # Variables such as VLLM_PORT, made from the names of Services, are read by engines.
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def http_probe(path: str, *, scheme: str = "HTTP", **settings: int) -> Body:
    """Return a probe of the port `http`."""
    return {"httpGet": {"path": path, "port": PORT_NAME, "scheme": scheme}, **settings}
