"""The decision: from what is wanted and what is there to what is to be done, with no I/O at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from serving_contract.status import Status
from serving_operator import backoff, budget, naming
from serving_operator.acceptance import judge
from serving_operator.actions import Action, CreatePod, DeletePod, Happening
from serving_operator.children import DEPLOYMENT, child_actions
from serving_operator.conditions import PROGRESSING, ROLLING_OUT, STALLED, Facts
from serving_operator.diagnosis import diagnose_replicas, diagnose_routers
from serving_operator.healing import LOST_AFTER_GRACE, Healing, force_at, heal
from serving_operator.observed import Observed
from serving_operator.ownership import Ownership
from serving_operator.replicas import Replicas, Target
from serving_operator.report import happenings, status_of
from serving_operator.resources.replica import replica_pod
from serving_operator.rollout import Removal, additions, removals
from serving_operator.settings import Defaults
from serving_operator.subject import Subject

TAKEN_POLL: Final = timedelta(seconds=15)
"""An object in our way may bear no label of ours, so that no watch tells when it goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done now.

    Attributes:
        actions: in this order.
        status: to be written once nothing is left to do; None = not known yet.
        happenings: the Events that go with that status.
        requeue_after: when time alone will call for another look.
    """

    actions: tuple[Action, ...] = ()
    status: Status | None = None
    happenings: tuple[Happening, ...] = ()
    requeue_after: timedelta | None = None

    @property
    def touches_pods(self) -> bool:
        """Whether it creates or deletes replicas."""
        return any(isinstance(action, CreatePod | DeletePod) for action in self.actions)


def plan(subject: Subject, observed: Observed, now: datetime, defaults: Defaults) -> Plan:
    """Decide.

    Args:
        subject: what is wanted, and the status written last.
        observed: what is there.
        now: the time.
        defaults: what the operator adds.
    """
    acceptance = judge(subject, observed, defaults)
    if acceptance.ask is not None:
        others = child_actions(subject, defaults, observed, with_router=False)
        return Plan(actions=(*others, acceptance.ask))
    target = _target(subject, is_accepted=not acceptance.replica_error)
    replicas = Replicas.of(subject, observed.pods, target, now)
    leaving = removals(replicas)
    healing = heal(
        replicas,
        before=_backoffs(subject, target),
        refused=observed.refused,
        leaving={removal.index for removal in leaving},
        node_lost=subject.spec.node_lost,
    )
    facts = Facts(
        subject=subject,
        replicas=replicas,
        template_error=acceptance.error,
        conflicts=tuple(_taken(subject, observed, replicas, Ownership.FOREIGN)),
        awaited=tuple(_taken(subject, observed, replicas, Ownership.PREDECESSORS)),
        router=_router_status(subject, observed),
        troubles=diagnose_replicas(subject, replicas, observed.refused, healing.backoffs),
        router_trouble=diagnose_routers(observed.routers),
    )
    status = status_of(facts, healing.backoffs)
    return Plan(
        actions=(
            *child_actions(subject, defaults, observed, with_router=not acceptance.router_error),
            *_deletions(leaving, healing),
            *_creations(subject, defaults, replicas, healing),
        ),
        status=status,
        happenings=tuple(happenings(subject.status, status)),
        requeue_after=_requeue_after(facts, healing),
    )


def _target(subject: Subject, *, is_accepted: bool) -> Target:
    spec, status = subject.spec, subject.status
    dp, revision = subject.dp, subject.revision
    if spec.paused:
        dp, revision = _frozen_dp(status), status.update_revision
    elif not is_accepted:
        revision = status.update_revision
    allowed = budget.of_rollout(spec.rollout, dp)
    before = subject.condition(PROGRESSING)
    return Target(
        dp=dp,
        revision=revision,
        may_create=is_accepted and revision == subject.revision,
        is_paused=spec.paused,
        max_unavailable=allowed.max_unavailable,
        max_surge=allowed.max_surge,
        min_ready=timedelta(seconds=spec.rollout.min_ready_seconds),
        progress_deadline=timedelta(seconds=spec.rollout.progress_deadline_seconds),
        was_rolling=before is not None and before.reason in {ROLLING_OUT, STALLED},
    )


def _frozen_dp(status: Status) -> int:
    """Return the number of replicas that the status was last written for."""
    _, _, count = status.ready.partition("/")
    return int(count) if count.isdecimal() else 0


def _backoffs(subject: Subject, target: Target) -> Mapping[int, backoff.Backoff]:
    """Return who backs off; another revision begins afresh."""
    if subject.status.update_revision != target.revision:
        return {}
    return backoff.read(subject.status)


def _taken(
    subject: Subject, observed: Observed, replicas: Replicas, by: Ownership
) -> Iterator[str]:
    """Yield the names of ours that are somebody else's, as `Kind name`."""
    for child in observed.children.values():
        if child.owner.seen_from(subject.name, subject.uid) is by:
            yield f"{child.kind} {child.name}"
    shelf = replicas.foreign if by is Ownership.FOREIGN else replicas.predecessors
    for index, pod in sorted(shelf.items()):
        if index < replicas.target.dp:
            yield f"Pod {pod.name}"


def _router_status(subject: Subject, observed: Observed) -> Mapping[str, object]:
    child = observed.children.get((DEPLOYMENT, naming.router(subject.name)))
    is_ours = child and child.owner.seen_from(subject.name, subject.uid) is Ownership.OURS
    return child.status if child and is_ours else {}


def _deletions(leaving: list[Removal], healing: Healing) -> Iterator[Action]:
    for removal in healing.forced:
        yield DeletePod(pod=removal.pod, reason=removal.reason, by_force=True)
    for removal in (*healing.cleared, *leaving):
        yield DeletePod(pod=removal.pod, reason=removal.reason)


def _creations(
    subject: Subject, defaults: Defaults, replicas: Replicas, healing: Healing
) -> Iterator[Action]:
    for addition in additions(replicas):
        waits = healing.backoffs.get(addition.index)
        if waits is None or waits.retry_at <= replicas.now:
            render = partial(replica_pod, subject, addition.index, defaults.images)
            yield CreatePod(index=addition.index, render=render, reason=addition.reason)


def _requeue_after(facts: Facts, healing: Healing) -> timedelta | None:
    now = facts.replicas.now
    later = [moment - now for moment in _moments(facts, healing) if moment > now]
    if facts.conflicts or facts.awaited:
        later.append(TAKEN_POLL)
    return min(later, default=None)


def _moments(facts: Facts, healing: Healing) -> Iterator[datetime]:
    """Yield the times at which something changes by itself."""
    replicas, node_lost = facts.replicas, facts.subject.spec.node_lost
    for waiting in healing.backoffs.values():
        yield waiting.retry_at
    for pod in replicas.unready_current:
        yield replicas.deadline_of(pod)
    for pod in replicas.ours.values():
        if pod.ready_at is not None:
            yield pod.ready_at + replicas.target.min_ready
        if pod.deletion_at is not None:
            yield pod.deletion_at + LOST_AFTER_GRACE
        if (due_at := force_at(pod, node_lost)) is not None:
            yield due_at
