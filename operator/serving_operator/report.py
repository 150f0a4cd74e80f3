"""The status that a reconcile writes, and the Events that its changes make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from serving_contract.status import Condition, ReplicaStatus, Status
from serving_operator import conditions, naming, timestamps
from serving_operator.actions import Happening
from serving_operator.backoff import Backoff
from serving_operator.body import number
from serving_operator.conditions import (
    DEGRADED,
    PROGRESSING,
    Facts,
    all_conditions,
    count_ready,
)
from serving_operator.resources.services import url
from serving_operator.subject import Subject
from serving_operator.trouble import SEVERITY

MAX_REPLICA_STATUSES = 64


def status_of(facts: Facts, backoffs: Mapping[int, Backoff]) -> Status:
    """Return the whole status."""
    subject, replicas = facts.subject, facts.replicas
    target = replicas.target
    living = [p for p in replicas.ours.values() if not (p.is_terminating or p.has_ended)]
    ready = count_ready(replicas)
    return Status(
        observed_generation=subject.generation,
        ready=f"{ready}/{target.dp}",
        replicas=len(living),
        ready_replicas=ready,
        updated_replicas=sum(not replicas.is_outdated(pod) for pod in living),
        unavailable_replicas=max(0, target.dp - replicas.available),
        device_count=_device_count(subject, target.dp, is_paused=target.is_paused),
        selector=naming.selector_text(subject.name),
        router_replicas=number(facts.router, "replicas"),
        ready_router_replicas=number(facts.router, "readyReplicas"),
        url=url(subject),
        update_revision=target.revision,
        replica_statuses=_replica_statuses(facts, backoffs),
        conditions=all_conditions(facts),
    )


def _device_count(subject: Subject, dp: int, *, is_paused: bool) -> int:
    return subject.status.device_count if is_paused else dp * subject.tp


def _replica_statuses(facts: Facts, backoffs: Mapping[int, Backoff]) -> tuple[ReplicaStatus, ...]:
    indexes = sorted(set(range(facts.replicas.target.dp)) | facts.replicas.ours.keys())
    if len(indexes) > MAX_REPLICA_STATUSES:
        indexes = sorted(
            sorted(indexes, key=lambda i: _worst_first(facts, i))[:MAX_REPLICA_STATUSES]
        )
    return tuple(_replica_status(facts, index, backoffs.get(index)) for index in indexes)


def _worst_first(facts: Facts, index: int) -> tuple[bool, int, bool, int]:
    """Order replicas; those that back off are in trouble, and only here is that remembered."""
    pod, trouble = facts.replicas.ours.get(index), facts.troubles.get(index)
    is_ready = pod is not None and pod.is_ready
    severity = SEVERITY[trouble.reason] if trouble else len(SEVERITY)
    is_current = pod is not None and not facts.replicas.is_outdated(pod)
    return is_ready, severity, is_current, index


def _replica_status(facts: Facts, index: int, backoff: Backoff | None) -> ReplicaStatus:
    pod, trouble = facts.replicas.ours.get(index), facts.troubles.get(index)
    return ReplicaStatus(
        index=index,
        pod=pod.name if pod else "",
        node=pod.node if pod else "",
        device_ids=pod.device_ids if pod else "",
        image=pod.image if pod else "",
        revision=pod.revision if pod else "",
        ready=pod is not None and pod.is_ready,
        reason=trouble.reason if trouble else "",
        message=trouble.message if trouble else "",
        failures=backoff.failures if backoff else None,
        retry_time=timestamps.write(backoff.retry_at) if backoff else None,
        failed_pod_uid=(backoff.failed_pod_uid or None) if backoff else None,
    )


def happenings(before: Status, after: Status) -> Iterator[Happening]:
    """Yield one Event for each transition."""
    old, new = _reasons(before), _reasons(after)
    revision = after.update_revision
    is_same = before.update_revision == revision
    match old.get(PROGRESSING), new.get(PROGRESSING):
        case was, now if was == now and (is_same or now != conditions.ROLLING_OUT):
            pass
        case _, conditions.ROLLING_OUT:
            yield Happening(reason="RolloutStarted", message=f"rolling to revision {revision}")
        case ((conditions.ROLLING_OUT | conditions.STALLED), conditions.COMPLETE):
            yield Happening(reason="RolloutComplete", message=f"all replicas run {revision}")
        case _, conditions.STALLED:
            message = _condition(after, PROGRESSING).message
            yield Happening(reason="RolloutStalled", message=message, is_warning=True)
    if new.get(DEGRADED) not in {"AsExpected", old.get(DEGRADED)}:
        degraded = _condition(after, DEGRADED)
        yield Happening(reason=degraded.reason, message=degraded.message, is_warning=True)


def _reasons(status: Status) -> dict[str, str]:
    return {condition.type: condition.reason for condition in status.conditions}


def _condition(status: Status, kind: str) -> Condition:
    return next(condition for condition in status.conditions if condition.type == kind)
