"""The four conditions, from facts that the plan has gathered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from serving_contract.status import Condition
from serving_operator import timestamps
from serving_operator.body import items, number, text
from serving_operator.replicas import Replicas
from serving_operator.subject import Subject
from serving_operator.trouble import SEVERITY, Trouble

ACCEPTED = "Accepted"
AVAILABLE = "Available"
PROGRESSING = "Progressing"
DEGRADED = "Degraded"

COMPLETE = "Complete"
ROLLING_OUT = "RollingOut"
SCALING = "Scaling"
STALLED = "ProgressDeadlineExceeded"
PAUSED = "Paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one condition says, before it gets its times."""

    type: str
    holds: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the conditions are made from.

    Attributes:
        template_error: why the spec cannot become pods; empty if it can.
        conflicts: children whose names are taken, as `Kind name`.
        awaited: children of a deleted ServingDeployment that are still there.
        router: the status of the router's Deployment; empty if there is none.
        troubles: by replica index.
        router_trouble: of the worst router; its message names the pod.
    """

    subject: Subject
    replicas: Replicas
    template_error: str
    conflicts: tuple[str, ...]
    awaited: tuple[str, ...]
    router: Mapping[str, object]
    troubles: Mapping[int, Trouble]
    router_trouble: Trouble | None = None


def all_conditions(facts: Facts) -> tuple[Condition, ...]:
    """Return the conditions; a time moves only when a status flips."""
    claims = (_accepted(facts), _available(facts), _progressing(facts), _degraded(facts))
    return tuple(_dated(claim, facts.subject, facts.replicas.now) for claim in claims)


def _dated(claim: Claim, subject: Subject, now: datetime) -> Condition:
    status: Literal["True", "False"] = "True" if claim.holds else "False"
    before = subject.condition(claim.type)
    is_same = before is not None and before.status == status
    return Condition(
        type=claim.type,
        status=status,
        observed_generation=subject.generation,
        last_transition_time=before.last_transition_time
        if before is not None and is_same
        else timestamps.write(now),
        reason=claim.reason,
        message=claim.message,
    )


def _accepted(facts: Facts) -> Claim:
    def claim(holds: bool, reason: str, message: str) -> Claim:
        return Claim(type=ACCEPTED, holds=holds, reason=reason, message=message)

    if facts.template_error:
        return claim(False, "TemplateInvalid", facts.template_error)
    if facts.conflicts:
        taken = ", ".join(facts.conflicts)
        message = f"{taken} exists and is not this ServingDeployment's; delete or rename it"
        return claim(False, "NameConflict", message)
    return claim(True, "Accepted", "the API server accepts the pods")


def _available(facts: Facts) -> Claim:
    def claim(holds: bool, reason: str, message: str) -> Claim:
        return Claim(type=AVAILABLE, holds=holds, reason=reason, message=message)

    dp, ready = facts.replicas.target.dp, count_ready(facts.replicas)
    routers = number(facts.router, "readyReplicas")
    if facts.subject.dp == 0 and dp == 0:
        return claim(True, "ScaledToZero", "dataParallelSize is 0")
    if dp == 0:
        return claim(False, "NoReadyReplica", "it was paused before its first replica")
    if ready == 0:
        return claim(False, "NoReadyReplica", f"none of {dp} replicas is ready")
    if routers == 0:
        words = _router_words(facts)
        return claim(False, "RouterUnavailable", f"no router is ready{words}")
    return claim(True, "ReplicasReady", f"{ready} of {dp} replicas and {routers} routers are ready")


def count_ready(replicas: Replicas) -> int:
    """Return how many pods of ours are ready."""
    return sum(pod.is_ready for pod in replicas.ours.values())


def _router_words(facts: Facts) -> str:
    """Quote why the Deployment's pods cannot be made, or what is wrong with them."""
    failures = [
        text(condition, "message")
        for condition in items(facts.router, "conditions")
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True"
    ]
    if facts.router_trouble is not None:
        failures.append(facts.router_trouble.message)
    return f": {failures[0]}" if failures else ""


def _progressing(facts: Facts) -> Claim:
    def claim(holds: bool, reason: str, message: str) -> Claim:
        return Claim(type=PROGRESSING, holds=holds, reason=reason, message=message)

    replicas = facts.replicas
    target, slow = replicas.target, replicas.slow
    if target.is_paused:
        return claim(False, PAUSED, "spec.paused is true: nothing scales or rolls")
    if facts.awaited:
        waiting = f"waiting for {', '.join(facts.awaited)} of the deleted ServingDeployment"
        return claim(True, SCALING, waiting)
    reason = _movement(facts)
    if slow and reason != COMPLETE:
        oldest = min(slow, key=lambda pod: pod.created_at)
        limit = f"{target.progress_deadline.total_seconds():g} s"
        return claim(False, STALLED, f"{oldest.name} is not ready after {limit}")
    if reason == COMPLETE:
        return claim(True, COMPLETE, f"{target.dp} replicas have revision {target.revision}")
    return claim(True, reason, _progress(replicas))


def _progress(replicas: Replicas) -> str:
    target = replicas.target
    updated = [pod for pod in replicas.base.values() if not replicas.is_outdated(pod)]
    ready = sum(pod.is_ready for pod in updated)
    return f"{ready} of {target.dp} replicas are ready at revision {target.revision}"


def _movement(facts: Facts) -> str:
    """Return what is on its way; a crash afterwards does not undo a completion."""
    replicas = facts.replicas
    if replicas.outdated_base:
        return ROLLING_OUT
    if is_settled(facts.subject, replicas) and not replicas.beyond:
        return COMPLETE
    if replicas.is_base_available and not replicas.beyond:
        return COMPLETE
    return ROLLING_OUT if replicas.target.was_rolling else SCALING


def is_settled(subject: Subject, replicas: Replicas) -> bool:
    """Return whether what is wanted was already complete when the status was last written."""
    before = subject.condition(PROGRESSING)
    return (
        before is not None
        and before.reason == COMPLETE
        and subject.status.update_revision == replicas.target.revision
        and subject.status.device_count == replicas.target.dp * subject.tp
    )


def _degraded(facts: Facts) -> Claim:
    if not facts.troubles:
        return _degraded_by_routers(facts.router_trouble)
    worst = min(facts.troubles, key=lambda index: (SEVERITY[facts.troubles[index].reason], index))
    trouble = facts.troubles[worst]
    others = len(facts.troubles) - 1
    more = f" (and {others} more)" if others else ""
    message = f"replica {worst}: {trouble.message}{more}"
    return Claim(type=DEGRADED, holds=True, reason=trouble.reason, message=message)


def _degraded_by_routers(trouble: Trouble | None) -> Claim:
    """A router that cannot start leaves its predecessor in place: nothing else would tell."""
    if trouble is None:
        return Claim(type=DEGRADED, holds=False, reason="AsExpected", message="")
    message = f"router {trouble.message}"
    return Claim(type=DEGRADED, holds=True, reason=trouble.reason, message=message)
