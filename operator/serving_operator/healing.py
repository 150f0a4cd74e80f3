"""Replicas whose pod has failed or whose node is lost: when to clear away, when to try again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from serving_contract.deployment import NodeLost
from serving_operator.backoff import Backoff, after_failure
from serving_operator.observed import Pod
from serving_operator.replicas import Replicas
from serving_operator.rollout import Removal

LOST_AFTER_GRACE: Final = timedelta(seconds=5)
"""A kubelet that is there has removed the pod by then; longer past the grace means a lost node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Healing:
    """What is due now.

    Attributes:
        cleared: failed pods whose replica may try again.
        forced: pods that nobody is left to end.
        backoffs: of every replica that has failed since it was last ready.
    """

    cleared: list[Removal] = field(default_factory=list)
    forced: list[Removal] = field(default_factory=list)
    backoffs: dict[int, Backoff] = field(default_factory=dict)


def heal(
    replicas: Replicas,
    *,
    before: Mapping[int, Backoff],
    refused: Mapping[int, str],
    leaving: set[int],
    node_lost: NodeLost,
) -> Healing:
    """Decide what to clear away.

    Args:
        replicas: the pods.
        before: the backoffs that the status tells.
        refused: indexes for which no pod could be made just now.
        leaving: indexes that are removed anyway: nothing to heal.
        node_lost: the policy.
    """
    healing = Healing(backoffs=_kept(before, replicas))
    for index in refused:
        if index not in replicas.ours and replicas.target.may_create:
            healing.backoffs[index] = after_failure(before.get(index), replicas.now)
    for index, pod in replicas.ours.items():
        if pod.has_ended and not pod.is_terminating and index not in leaving:
            _retry(healing, replicas, index, pod)
        if is_due_by_force(pod, node_lost, replicas.now):
            reason = f"its node is lost: past its grace by {node_lost.after_seconds} s"
            healing.forced.append(Removal(index=index, pod=pod, reason=reason))
    return healing


def _kept(before: Mapping[int, Backoff], replicas: Replicas) -> dict[int, Backoff]:
    """Forget a replica's failures once it is ready."""
    return {
        index: backoff
        for index, backoff in before.items()
        if not (index in replicas.ours and replicas.ours[index].is_ready)
    }


def _retry(healing: Healing, replicas: Replicas, index: int, pod: Pod) -> None:
    if not replicas.target.may_create:
        return
    backoff = healing.backoffs.get(index)
    if backoff is None or backoff.failed_pod_uid != pod.uid:
        healing.backoffs[index] = after_failure(backoff, replicas.now, pod.uid)
    elif backoff.retry_at <= replicas.now:
        words = pod.trouble.message if pod.trouble else "it has ended"
        reason = f"it failed ({words}); try {backoff.failures + 1}"
        healing.cleared.append(Removal(index=index, pod=pod, reason=reason))


def is_lost(pod: Pod, now: datetime) -> bool:
    """Return whether a pod terminates for longer than its grace."""
    return pod.deletion_at is not None and now >= pod.deletion_at + LOST_AFTER_GRACE


def force_at(pod: Pod, node_lost: NodeLost) -> datetime | None:
    """Return when a terminating pod is to be deleted by force; None if never."""
    if pod.deletion_at is None or pod.is_forced or node_lost.policy != "ForceDelete":
        return None
    return pod.deletion_at + timedelta(seconds=node_lost.after_seconds)


def is_due_by_force(pod: Pod, node_lost: NodeLost, now: datetime) -> bool:
    """Return whether that time has come."""
    due_at = force_at(pod, node_lost)
    return due_at is not None and due_at <= now
