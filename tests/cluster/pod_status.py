"""What a kubelet would write into the status of a pod: pure, from the pod and its state."""

from __future__ import annotations

from dataclasses import dataclass

from tests.cluster.api import Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a container ended the last time."""

    code: int
    reason: str = "Error"
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Every container runs."""

    is_ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The first container waits: its image cannot be had, or it ended and is started later."""

    reason: str
    message: str
    last_exit: Exit | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The pod has failed for good."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """Every container has ended as it was told to: what a deleted pod comes to."""


State = Running | Waiting | Failed | Succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a pod runs and since when."""

    address: str
    started: str


def status_of(pod: Body, state: State, place: Place, now: str) -> Body:
    """Return the status for a strategic merge patch; `now` is the time of what has changed."""
    is_ready = state == Running(is_ready=True)
    status: Body = {
        "phase": _phase(state),
        "startTime": place.started,
        "conditions": _conditions(pod, state, is_ready, now),
    }
    if isinstance(state, Failed):
        return status | {"reason": state.reason, "message": state.message}
    return status | {
        "hostIP": "127.0.0.1",
        "podIP": place.address,
        "podIPs": [{"ip": place.address}],
        "containerStatuses": _containers(pod, state, place, now),
        "initContainerStatuses": _init_containers(pod, place),
    }


def _phase(state: State) -> str:
    match state:
        case Running():
            return "Running"
        case Waiting(last_exit=None):
            return "Pending"
        case Waiting():
            return "Running"
        case Failed():
            return "Failed"
        case Succeeded():
            return "Succeeded"


def _conditions(pod: Body, state: State, is_ready: bool, now: str) -> list[Body]:
    has_ended = isinstance(state, Failed | Succeeded)
    runs = {"PodReadyToStartContainers": not has_ended, "Initialized": True}
    claims = runs | {"ContainersReady": is_ready, "Ready": is_ready}
    reason = "PodFailed" if isinstance(state, Failed) else "PodCompleted"
    unready = reason if has_ended else "ContainersNotReady"
    before = {condition["type"]: condition for condition in pod["status"].get("conditions", [])}
    return [
        _condition(kind, holds, "" if holds else unready, before.get(kind), now)
        for kind, holds in claims.items()
    ]


def _condition(kind: str, holds: bool, reason: str, before: Body | None, now: str) -> Body:
    status = str(holds)
    since = before["lastTransitionTime"] if before and before["status"] == status else now
    return {"type": kind, "status": status, "reason": reason, "lastTransitionTime": since}


def _containers(pod: Body, state: State, place: Place, now: str) -> list[Body]:
    first, *others = pod["spec"]["containers"]
    beside = Running(is_ready=True) if isinstance(state, Waiting) else state
    return [
        _container(pod, first, state, place, now),
        *(_container(pod, other, beside, place, now) for other in others),
    ]


def _container(pod: Body, container: Body, state: State, place: Place, now: str) -> Body:
    name, uid = container["name"], pod["metadata"]["uid"]
    status = {
        "name": name,
        "image": container["image"],
        "imageID": "",
        "containerID": f"containerd://{uid}-{name}",
        "restartCount": 0,
        "ready": False,
        "started": False,
    }
    match state:
        case Running(is_ready=is_ready):
            runs = {"running": {"startedAt": place.started}}
            return status | {"ready": is_ready, "started": True, "state": runs}
        case Waiting(reason=reason, message=message, last_exit=last_exit):
            waits = {"waiting": {"reason": reason, "message": message}}
            return status | {"state": waits} | _last_state(last_exit, place, now)
        case _:
            ended = _ended(Exit(code=0, reason="Completed"), place, now)
            return status | {"state": ended}


def _last_state(last_exit: Exit | None, place: Place, now: str) -> Body:
    if last_exit is None:
        return {"containerID": ""}
    return {"restartCount": 1, "lastState": _ended(last_exit, place, now)}


def _ended(how: Exit, place: Place, now: str) -> Body:
    return {
        "terminated": {
            "exitCode": how.code,
            "reason": how.reason,
            "message": how.message,
            "startedAt": place.started,
            "finishedAt": now,
        }
    }


def _init_containers(pod: Body, place: Place) -> list[Body]:
    runs = Running(is_ready=True)
    return [
        _container(
            pod,
            container,
            runs if container.get("restartPolicy") == "Always" else Succeeded(),
            place,
            place.started,
        )
        for container in pod["spec"].get("initContainers", [])
    ]
