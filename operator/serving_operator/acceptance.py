"""Whether the spec can become pods: our own rules first, then the API server's, once a revision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serving_operator import naming
from serving_operator.actions import AskServer
from serving_operator.body import Body
from serving_operator.children import DEPLOYMENT, router_deployment
from serving_operator.conditions import ACCEPTED
from serving_operator.errors import TemplateInvalid
from serving_operator.observed import Observed
from serving_operator.resources import router
from serving_operator.resources.replica import replica_pod
from serving_operator.revision import digest
from serving_operator.settings import Defaults
from serving_operator.subject import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What is known.

    Attributes:
        replica_error: why a replica's pod cannot be; empty if it can.
        router_error: the same of the router's pods.
        ask: what the API server has to be asked before anything else is known.
    """

    replica_error: str = ""
    router_error: str = ""
    ask: AskServer | None = None

    @property
    def error(self) -> str:
        """The first of the errors."""
        return self.replica_error or self.router_error


def judge(subject: Subject, observed: Observed, defaults: Defaults) -> Acceptance:
    """Say whether the pods can be, or what has to be asked to know."""
    replica, replica_error = _rendered(lambda: replica_pod(subject, 0, defaults.images))
    pod, router_error = _rendered(lambda: router.dry_run_pod(subject, defaults.images))
    verdict = observed.verdict
    can_ask = replica is not None or pod is not None
    if verdict is None and can_ask and not _was_accepted(subject, observed, defaults, router_error):
        return Acceptance(
            ask=AskServer(replica=replica, router=pod, reason="these pods have not been tried yet")
        )
    return Acceptance(
        replica_error=replica_error or (verdict.replica if verdict else ""),
        router_error=router_error or (verdict.router if verdict else ""),
    )


def question_of(subject: Subject, defaults: Defaults) -> str:
    """Return what the API server is asked, as a hash: another question is asked anew."""
    pod, _ = _rendered(lambda: router.pod_template(subject, defaults.images))
    return digest([subject.revision, pod])


def _rendered(render: Callable[[], Body]) -> tuple[Body | None, str]:
    try:
        return render(), ""
    except TemplateInvalid as error:
        return None, str(error)


def _was_accepted(
    subject: Subject, observed: Observed, defaults: Defaults, router_error: str
) -> bool:
    """Return whether status and Deployment tell that both were accepted, before a restart."""
    accepted = subject.condition(ACCEPTED)
    if accepted is None or accepted.status != "True" or router_error:
        return False
    child = observed.children.get((DEPLOYMENT, naming.router(subject.name)))
    meant = router_deployment(subject, defaults, observed)
    is_applied = child is not None and child.applied == meant.hash
    return is_applied and subject.status.update_revision == subject.revision
