"""What is wrong with a pod, in the words of the scheduler, the kubelet or the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from serving_contract.kubernetes import ANNOTATION_POD_STATUS
from serving_operator.body import at, items, number, text

_IMAGE_REASONS: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_ORDINARY_WAITING: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
_ADMISSION_REASONS: Final = frozenset(
    {
        "UnexpectedAdmissionError",
        "NodeAffinity",
        "NodePorts",
        "AppArmor",
        "TopologyAffinityError",
        "InvalidNodeInfo",
        "PodOSNotSupported",
    }
)
_CRASH_LOOP: Final = "CrashLoopBackOff"
_MAX_MESSAGE: Final = 1024


class Reason(StrEnum):
    """Reasons of the condition Degraded; the worst first."""

    NODE_LOST = "NodeLost"
    ADMISSION_FAILED = "AdmissionFailed"
    DEVICE_UNHEALTHY = "DeviceUnhealthy"
    OUT_OF_MEMORY = "OutOfMemory"
    CRASH_LOOP = "CrashLoop"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    STARTUP_TIMEOUT = "StartupTimeout"
    REPLICA_NOT_READY = "ReplicaNotReady"


SEVERITY: Final = {reason: position for position, reason in enumerate(Reason)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A reason and the words of whoever noticed.

    Attributes:
        is_unready: all that is wrong is that a probe fails, as it does for a moment in every start.
    """

    reason: Reason
    message: str
    is_unready: bool = False


def diagnose(pod: Mapping[str, object]) -> Trouble | None:
    """Return the worst that the pod's status tells; None if nothing is wrong.

    Sources: the pod's phase and conditions, its containers' states, KEP-4680 for the health of
    devices, and mind-cluster's annotation for the same.
    """
    found = list(_symptoms(pod))
    return min(found, key=lambda trouble: SEVERITY[trouble.reason], default=None)


def _symptoms(pod: Mapping[str, object]) -> Iterator[Trouble]:
    status = at(pod, "status")
    if text(status, "phase") in {"Failed", "Succeeded"}:
        yield _ended(status)
    yield from _from_conditions(status)
    if text(pod, "metadata", "annotations", ANNOTATION_POD_STATUS) == "Unhealthy":
        yield _trouble(Reason.DEVICE_UNHEALTHY, f"{ANNOTATION_POD_STATUS}: Unhealthy")
    for container in items(status, "initContainerStatuses"):
        # The kubelet calls it started, and never ready, while it runs as it should.
        yield from _from_container({**container, "started": False})
    for container in items(status, "containerStatuses"):
        yield from _from_container(container)


def _ended(status: object) -> Trouble:
    """Tell the kubelet's refusal to begin from whatever ends a pod later."""
    why = text(status, "reason")
    is_refused = why in _ADMISSION_REASONS or why.startswith("OutOf")
    reason = Reason.ADMISSION_FAILED if is_refused else Reason.REPLICA_NOT_READY
    return _trouble(reason, text(status, "message"), prefix=why or text(status, "phase"))


def _from_conditions(status: object) -> Iterator[Trouble]:
    for condition in items(status, "conditions"):
        match condition.get("type"), condition.get("status"), condition.get("reason"):
            case "PodScheduled", "False", "Unschedulable":
                yield _trouble(Reason.UNSCHEDULABLE, text(condition, "message"))
            case "DisruptionTarget", "True", "DeletionByTaintManager":
                yield _trouble(Reason.NODE_LOST, text(condition, "message"))


def _from_container(container: Mapping[str, object]) -> Iterator[Trouble]:
    if sick := list(_sick_devices(container)):
        yield _trouble(Reason.DEVICE_UNHEALTHY, f"unhealthy devices: {', '.join(sick)}")
    if container.get("ready") is True:
        return
    waiting = text(container, "state", "waiting", "reason")
    words = text(container, "state", "waiting", "message")
    if waiting in _IMAGE_REASONS:
        yield _trouble(Reason.IMAGE_PULL_FAILED, words, prefix=waiting)
        return
    if container.get("started") is True and at(container, "state", "running") is not None:
        message = f"container {text(container, 'name')} runs, its ready probe fails"
        yield Trouble(reason=Reason.REPLICA_NOT_READY, message=message, is_unready=True)
    elif crash := _crash(container):
        yield crash
    elif waiting == _CRASH_LOOP:
        yield _trouble(Reason.CRASH_LOOP, words)
    elif waiting not in _ORDINARY_WAITING:
        yield _trouble(Reason.REPLICA_NOT_READY, words, prefix=waiting)


def _crash(container: Mapping[str, object]) -> Trouble | None:
    """Return how the container ended last, from the first non-zero exit on."""
    for state in ("state", "lastState"):
        ended = at(container, state, "terminated")
        code = number(ended, "exitCode")
        if code == 0:
            continue
        killed = text(ended, "reason") == "OOMKilled"
        reason = Reason.OUT_OF_MEMORY if killed else Reason.CRASH_LOOP
        prefix = f"container {text(container, 'name')} exited with code {code}"
        return _trouble(reason, _last_line(text(ended, "message")), prefix=prefix)
    return None


def _last_line(log: str) -> str:
    """Return the end of a log: the kubelet hands over up to 80 lines of it."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _sick_devices(container: Mapping[str, object]) -> Iterator[str]:
    for resource in items(container, "allocatedResourcesStatus"):
        for device in items(resource, "resources"):
            if device.get("health") == "Unhealthy":
                yield f"{text(resource, 'name')} {text(device, 'resourceID')}"


def _trouble(reason: Reason, message: str, *, prefix: str = "") -> Trouble:
    words = ": ".join(part for part in (prefix, " ".join(message.split())) if part)
    return Trouble(reason=reason, message=words[:_MAX_MESSAGE])
