"""An operator that is killed again and again, at any point of what it does."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.api import Api
from tests.cluster.kubelet import Kubelet
from tests.cluster.pod_watch import PodWatch
from tests.operator.conftest import StartOperator
from tests.operator.operator_process import OperatorProcess
from tests.operator.replica_history import (
    Size,
    assert_one_pod_for_each_index,
    most_down,
    replica_events,
)
from tests.operator.sdep import Sdep

Change = tuple[dict[str, Any], int]
"""A change of the spec, and how often the operator is killed in its course."""
RELEASE = {"metadata": {"annotations": {"release": "2"}}}

HISTORIES: dict[str, tuple[dict[str, Any], int, list[Change]]] = {
    "one at a time": (
        {"maxUnavailable": 1},
        1,
        [
            ({"parallelism": {"dataParallelSize": 6}}, 1),
            ({"template": RELEASE}, 2),
            ({"parallelism": {"dataParallelSize": 3}}, 2),
            ({"template": None}, 2),
        ],
    ),
    "surge": (
        {"maxUnavailable": 0, "maxSurge": 1},
        0,
        [({"template": RELEASE}, 3), ({"parallelism": {"dataParallelSize": 2}}, 1)],
    ),
}


@pytest.fixture
def slow_kubelet(kubelet: Kubelet) -> Iterator[Kubelet]:
    """Pods take a while to come and to go, so that the operator dies while they do."""
    kubelet.ready_after_s = kubelet.grace_s = 0.3
    yield kubelet
    kubelet.ready_after_s = kubelet.grace_s = 0.0


@pytest.fixture
def pods(api: Api, namespace: str) -> Iterator[PodWatch]:
    with PodWatch(api, namespace) as watch:
        yield watch


class Reaper:
    """Kills the operator and starts it again, as the same pod, after random times."""

    def __init__(self, operator: OperatorProcess, seed: int) -> None:
        self.operator = operator
        self._random = random.Random(seed)

    def kill(self, times: int) -> None:
        for _ in range(times):
            # Some die before they are ready.
            if self._random.random() < 0.8:
                self.operator.wait_ready()
            time.sleep(self._random.uniform(0.05, 1.5))
            self.operator.kill()
            self.operator.start()


# Longer than 20 s: an operator needs about 2 s to begin, and it is killed 8 and 5 times.
@pytest.mark.parametrize(("rollout", "budget", "changes"), HISTORIES.values(), ids=HISTORIES.keys())
def test_killed_operator_makes_no_pod_twice_and_keeps_the_budget(
    start_operator: StartOperator,
    slow_kubelet: Kubelet,
    sdep: Sdep,
    pods: PodWatch,
    rollout: dict[str, Any],
    budget: int,
    changes: list[Change],
) -> None:
    operator = start_operator().wait_ready()
    reaper = Reaper(operator, seed=2026)
    spec = {
        "parallelism": {"dataParallelSize": 4},
        "rollout": {"drainTimeoutSeconds": 1, **rollout},
    }
    sizes = [Size.of(sdep.create(**spec))]
    reaper.kill(1)
    sdep.wait_complete()
    for change, kills in changes:
        sizes.append(Size.of(sdep.change(**change)))
        reaper.kill(kills)
    sdep.wait_complete()
    assert sorted(sdep.uids()) == [f"qwen-{index}" for index in range(sizes[-1].replicas)]
    assert_one_pod_for_each_index(pods)
    assert most_down(pods, sizes) <= budget
    assert_events_tell_no_more_than_happened(sdep, pods)


def assert_events_tell_no_more_than_happened(sdep: Sdep, pods: PodWatch) -> None:
    told = sdep.events()
    happened = [event for _, event in replica_events(pods, sdep.name)]
    created = {event.uid for event in happened}
    deleted = {e.uid for e in happened if "deletionTimestamp" in e.pod["metadata"]}
    assert told.count("ReplicaCreated") <= len(created)
    assert told.count("ReplicaDeleted") <= len(deleted)
    assert told.count("RolloutStarted") <= 2
    assert "RolloutStalled" not in told
