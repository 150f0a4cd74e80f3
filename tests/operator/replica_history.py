"""What happened to the replicas, read from every event of their pods: the proofs of budgets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.cluster.api import Body
from tests.cluster.pod_watch import PodEvent, PodWatch

_COMPONENT = "app.kubernetes.io/component"
_INDEX = "ascend-serving.dev/replica-index"


@dataclass(frozen=True, slots=True)
class Size:
    """The number of replicas that was wanted from a resourceVersion on."""

    since: int
    replicas: int

    @classmethod
    def of(cls, sdep: Body) -> Size:
        """Read it from the answer to the change."""
        version = int(sdep["metadata"]["resourceVersion"])
        return cls(version, sdep["spec"]["parallelism"]["dataParallelSize"])


def is_ready(pod: Body) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def replica_events(pods: PodWatch, name: str) -> Iterator[tuple[int, PodEvent]]:
    """Yield what happened to the replicas of one ServingDeployment, with their indexes."""
    for event in pods.events():
        labels = event.pod["metadata"].get("labels", {})
        mine = labels.get("ascend-serving.dev/name") == name
        if mine and labels.get(_COMPONENT) == "replica":
            yield int(labels[_INDEX]), event


def assert_one_pod_for_each_index(pods: PodWatch, name: str = "qwen") -> None:
    """Assert that there were never two, by index, and that a name's uid changed only by a DELETE.

    That the watch has lost nothing is part of the proof.
    """
    assert pods.gaps == 0
    there: dict[int, str] = {}
    for index, event in replica_events(pods, name):
        assert event.name == f"{name}-{index}"
        assert there.get(index, event.uid) == event.uid, f"two pods for index {index}"
        there[index] = event.uid
        if event.kind == "DELETED":
            del there[index]


def most_down(pods: PodWatch, sizes: Sequence[Size], name: str = "qwen") -> int:
    """Return how many replicas were down at once, at most, because their pod was deleted.

    A replica is down from the deletion of a pod that was Ready, of an index that was wanted then,
    until a pod of that index is Ready. Each Ready pod of an index beyond them stands in for one.
    """
    down: set[int] = set()
    ready: set[int] = set()
    most = 0
    for index, event in replica_events(pods, name):
        wanted = _wanted(sizes, event.version)
        if event.kind == "DELETED" or "deletionTimestamp" in event.pod["metadata"]:
            down |= {index} & ready
            ready.discard(index)
        elif is_ready(event.pod):
            ready.add(index)
            down.discard(index)
        else:
            ready.discard(index)
        down = {one for one in down if one < wanted}
        most = max(most, len(down) - sum(one >= wanted for one in ready))
    return most


def _wanted(sizes: Sequence[Size], version: int) -> int:
    return max(
        (size for size in sizes if size.since <= version), key=lambda size: size.since
    ).replicas
