from __future__ import annotations

from typing import Any

import pytest

from serving_operator.trouble import Reason, diagnose


def container(**state: Any) -> dict[str, Any]:
    return {"status": {"containerStatuses": [{"name": "engine", "ready": False, **state}]}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return container(state={"waiting": {"reason": reason, "message": message}})


def exited(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    ended = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return container(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=ended)


def condition(kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
    one = {"type": kind, "status": status, "reason": reason, "message": message}
    return {"status": {"phase": "Pending", "conditions": [one]}}


SYMPTOMS: dict[str, tuple[dict[str, Any], Reason, str]] = {
    "unschedulable": (
        condition("PodScheduled", "False", "Unschedulable", "0/3 nodes are available"),
        Reason.UNSCHEDULABLE,
        "0/3 nodes are available",
    ),
    "taint manager": (
        condition("DisruptionTarget", "True", "DeletionByTaintManager", "node is gone"),
        Reason.NODE_LOST,
        "node is gone",
    ),
    "image": (
        waiting("ErrImagePull", 'pull "x": not found'),
        Reason.IMAGE_PULL_FAILED,
        'ErrImagePull: pull "x": not found',
    ),
    "first non-zero exit": (
        container(state={"terminated": {"exitCode": 2, "message": "a\nmodel /m: missing\n"}}),
        Reason.CRASH_LOOP,
        "container engine exited with code 2: model /m: missing",
    ),
    "crash loop": (
        exited(1, message="boom"),
        Reason.CRASH_LOOP,
        "container engine exited with code 1: boom",
    ),
    "out of memory": (
        exited(137, "OOMKilled"),
        Reason.OUT_OF_MEMORY,
        "container engine exited with code 137",
    ),
    "missing secret": (
        waiting("CreateContainerConfigError", 'secret "s" not found'),
        Reason.REPLICA_NOT_READY,
        'CreateContainerConfigError: secret "s" not found',
    ),
    "ready probe fails later": (
        container(started=True, state={"running": {}}),
        Reason.REPLICA_NOT_READY,
        "container engine runs, its ready probe fails",
    ),
    "refused by the kubelet": (
        {"status": {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "none"}},
        Reason.ADMISSION_FAILED,
        "UnexpectedAdmissionError: none",
    ),
    "shut down with its node": (
        {"status": {"phase": "Failed", "reason": "Terminated", "message": "node shutdown"}},
        Reason.REPLICA_NOT_READY,
        "Terminated: node shutdown",
    ),
    "not ready long after a crash": (
        container(
            started=True,
            state={"running": {}},
            lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
        ),
        Reason.REPLICA_NOT_READY,
        "container engine runs, its ready probe fails",
    ),
    "evicted": (
        {"status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}},
        Reason.REPLICA_NOT_READY,
        "Evicted: low on memory",
    ),
    "sick device": (
        {
            "status": {
                "containerStatuses": [
                    {
                        "name": "engine",
                        "ready": True,
                        "allocatedResourcesStatus": [
                            {
                                "name": "huawei.com/Ascend910",
                                "resources": [
                                    {"resourceID": "0", "health": "Healthy"},
                                    {"resourceID": "3", "health": "Unhealthy"},
                                ],
                            }
                        ],
                    }
                ]
            }
        },
        Reason.DEVICE_UNHEALTHY,
        "unhealthy devices: huawei.com/Ascend910 3",
    ),
}


@pytest.mark.parametrize(("pod", "reason", "message"), SYMPTOMS.values(), ids=SYMPTOMS.keys())
def test_symptom_is_named_and_quoted(pod: dict[str, Any], reason: Reason, message: str) -> None:
    found = diagnose(pod)
    assert found is not None
    assert (found.reason, found.message) == (reason, message)


@pytest.mark.parametrize(
    "pod",
    [
        {},
        waiting("ContainerCreating"),
        waiting("PodInitializing"),
        container(started=False, state={"running": {}}),
        container(ready=True, lastState={"terminated": {"exitCode": 1}}),
        container(state={"terminated": {"exitCode": 0}}),
    ],
    ids=["nothing known", "creating", "initializing", "loading", "recovered", "done"],
)
def test_what_merely_starts_is_in_no_trouble(pod: dict[str, Any]) -> None:
    assert diagnose(pod) is None


def test_init_container_that_runs_is_in_no_trouble() -> None:
    running = {"name": "download", "ready": False, "started": True, "state": {"running": {}}}
    assert diagnose({"status": {"initContainerStatuses": [running]}}) is None


def test_init_container_that_fails_is_told() -> None:
    ended = {"terminated": {"exitCode": 3, "message": "no space"}}
    failing = {"name": "download", "ready": False, "started": False, "state": ended}
    found = diagnose({"status": {"initContainerStatuses": [failing]}})
    assert found is not None
    assert found.message == "container download exited with code 3: no space"


def test_strange_shapes_are_no_reason_to_fail() -> None:
    assert diagnose({"status": {"containerStatuses": "x", "conditions": [1, None]}}) is None
