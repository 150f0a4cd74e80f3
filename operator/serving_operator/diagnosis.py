"""Which replicas are in trouble: what their pods tell, and what only time tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from serving_operator.backoff import Backoff
from serving_operator.healing import is_lost
from serving_operator.observed import Pod
from serving_operator.replicas import Replicas
from serving_operator.subject import Subject
from serving_operator.trouble import SEVERITY, Reason, Trouble


def diagnose_replicas(
    subject: Subject,
    replicas: Replicas,
    refused: Mapping[int, str],
    backoffs: Mapping[int, Backoff],
) -> dict[int, Trouble]:
    """Return the trouble of each replica that has one; those that merely start have none."""
    target = replicas.target
    found = {}
    for index in sorted({*range(target.dp + target.max_surge), *replicas.ours}):
        pod = replicas.ours.get(index)
        if pod is not None:
            trouble = _of_pod(pod, replicas)
        else:
            trouble = _of_absence(subject, index, refused, backoffs)
        if trouble is not None:
            found[index] = trouble
    return found


def diagnose_routers(routers: Iterable[Pod]) -> Trouble | None:
    """Return the worst of what is wrong with the routers' pods; None if nothing is."""
    found = [
        Trouble(reason=pod.trouble.reason, message=f"{pod.name}: {pod.trouble.message}")
        for pod in routers
        if pod.trouble is not None
        and not (pod.trouble.is_unready or pod.is_terminating or pod.has_ended)
    ]
    return min(found, key=lambda one: (SEVERITY[one.reason], one.message), default=None)


def _of_pod(pod: Pod, replicas: Replicas) -> Trouble | None:
    if pod.is_terminating:
        return _of_terminating(pod, replicas)
    if pod.trouble is not None:
        return pod.trouble
    if pod.is_ready or replicas.now < replicas.deadline_of(pod):
        return None
    limit = f"{replicas.target.progress_deadline.total_seconds():g} s"
    return Trouble(reason=Reason.STARTUP_TIMEOUT, message=f"{pod.name} is not ready after {limit}")


def _of_terminating(pod: Pod, replicas: Replicas) -> Trouble | None:
    """Return trouble only if nobody ends the pod; how it ends is of no interest any more."""
    if pod.trouble is not None and pod.trouble.reason is Reason.NODE_LOST:
        return pod.trouble
    if not is_lost(pod, replicas.now):
        return None
    message = f"{pod.name} should have ended by now; node {pod.node or 'unknown'} does not answer"
    return Trouble(reason=Reason.NODE_LOST, message=message)


def _of_absence(
    subject: Subject, index: int, refused: Mapping[int, str], backoffs: Mapping[int, Backoff]
) -> Trouble | None:
    if message := refused.get(index):
        return Trouble(reason=Reason.ADMISSION_FAILED, message=message)
    if index not in backoffs:
        return None
    before = next((one for one in subject.status.replica_statuses if one.index == index), None)
    if before is None or before.reason not in list(Reason):
        return None
    return Trouble(reason=Reason(before.reason), message=before.message)
