"""Which replicas go and which come: scale, roll, heal, within the budget.

Deleting a replica that serves is paid from the budget: as many as serve now, minus as many as must
(dp - maxUnavailable). One that does not serve costs nothing and goes first. A successor is made
only when the old pod is gone, because a full device pool has no place for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from serving_operator.observed import Pod
from serving_operator.replicas import Replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A pod that is to go, and why."""

    index: int
    pod: Pod
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """An index that is to get a pod, and why."""

    index: int
    reason: str


def removals(replicas: Replicas) -> list[Removal]:
    """Return which pods are to be deleted now, apart from failed and lost ones."""
    if replicas.target.is_paused:
        return []
    chosen = list(_surplus(replicas))
    if replicas.target.may_create and not replicas.is_stalled:
        chosen += list(_outdated(replicas, leaving={removal.index for removal in chosen}))
    return chosen


def _surplus(replicas: Replicas) -> Iterator[Removal]:
    """Yield what is beyond dp, highest first, but for the surge pods of a rollout."""
    target = replicas.target
    for index, pod in sorted(replicas.beyond.items(), reverse=True):
        is_surge = index < target.dp + target.max_surge and _needs_surge(replicas)
        if not pod.is_terminating and not is_surge:
            yield Removal(index=index, pod=pod, reason=_why_surplus(replicas, index))


def _why_surplus(replicas: Replicas, index: int) -> str:
    if replicas.target.was_rolling and index < replicas.target.dp + replicas.target.max_surge:
        return "the rollout is over and needs no surge replica any more"
    return f"scaled down to {replicas.target.dp}"


def _needs_surge(replicas: Replicas) -> bool:
    """Return whether surge pods stand in for somebody, or may: nobody can tell who made them."""
    return bool(replicas.outdated_base) or not replicas.is_base_available


def _outdated(replicas: Replicas, leaving: set[int]) -> Iterator[Removal]:
    """Yield pods of an old revision that may go now: idle ones first, then the highest index."""
    staying = {index: pod for index, pod in replicas.ours.items() if index not in leaving}
    outdated = {
        index: pod
        for index, pod in staying.items()
        if replicas.is_outdated(pod) and not pod.is_terminating
    }
    # What leaves anyway serves no longer, and nobody may be taken away on its account.
    allowed = sum(map(replicas.is_available, staying.values())) - replicas.target.floor
    awaits_surge = _awaits_surge(replicas)
    for index, pod in sorted(outdated.items(), key=_idle_then_highest):
        if pod.is_ready:
            if allowed <= 0 or (awaits_surge and index < replicas.target.dp):
                continue
            allowed -= 1
        yield Removal(index=index, pod=pod, reason=_why_outdated(replicas, pod))


def _idle_then_highest(indexed: tuple[int, Pod]) -> tuple[bool, int]:
    index, pod = indexed
    return pod.is_ready, -index


def _why_outdated(replicas: Replicas, pod: Pod) -> str:
    state = "" if pod.is_ready else ", and not ready"
    return f"revision {pod.revision or 'unknown'} is replaced by {replicas.target.revision}{state}"


def _wanted_surge(replicas: Replicas) -> range:
    """Return the indexes of surge pods: as many as there are pods to replace, at most maxSurge."""
    target = replicas.target
    return range(target.dp, target.dp + min(target.max_surge, len(replicas.outdated_base)))


def _awaits_surge(replicas: Replicas) -> bool:
    """Return whether a surge pod has yet to serve: until then nobody who serves goes."""
    standing_in = (replicas.ours.get(index) for index in _wanted_surge(replicas))
    return any(
        pod is None or replicas.is_outdated(pod) or not replicas.is_available(pod)
        for pod in standing_in
    )


def additions(replicas: Replicas) -> list[Addition]:
    """Return which indexes are to get a pod now; their names are free."""
    target = replicas.target
    if not target.may_create:
        return []
    free = [index for index in range(target.dp) if index not in replicas.is_taken]
    chosen = [Addition(index=index, reason="replica is missing") for index in free]
    if not target.is_paused and not replicas.is_stalled:
        chosen += [
            Addition(index=index, reason="surge replica of a rollout")
            for index in _wanted_surge(replicas)
            if index not in replicas.is_taken
        ]
    return chosen
