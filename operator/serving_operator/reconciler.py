"""One reconcile: look, decide, act, and look again until nothing is left to do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from serving_contract.errors import InvalidDeployment
from serving_contract.status import Condition
from serving_operator import naming, timestamps
from serving_operator.acceptance import question_of
from serving_operator.actions import (
    Action,
    ApplyChild,
    AskServer,
    CreateChild,
    CreatePod,
    DeleteChild,
    DeletePod,
    Happening,
    TakeOver,
)
from serving_operator.body import Body, number, text
from serving_operator.cluster import Cluster, is_leaving, is_template_error
from serving_operator.errors import DoesNotRest, Refused
from serving_operator.observed import Observed, Verdict
from serving_operator.plan import Plan, plan
from serving_operator.settings import Defaults
from serving_operator.store import Key, Store
from serving_operator.subject import Subject, read_status

_log = logging.getLogger(__name__)

MAX_PASSES: Final = 40
"""Of one reconcile, so that one key cannot keep a worker for ever."""
_SERVER_ERROR: Final = 500
_TOO_MANY: Final = 429


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class Reconciler:
    """Brings one ServingDeployment after another to what it says.

    Args:
        cluster: carries out.
        store: what is known.
        defaults: what the operator adds.
        clock: the time.
    """

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        defaults: Defaults,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._defaults = defaults
        self._clock = clock
        self._verdicts: dict[Key, tuple[str, Verdict]] = {}

    def forget_objections(self) -> None:
        """Ask again about what the API server did not accept: its own rules may have changed."""
        accepted = Verdict()
        self._verdicts = {key: one for key, one in self._verdicts.items() if one[1] == accepted}

    async def reconcile(self, key: Key) -> timedelta | None:
        """Do all that can be done now; returns when time alone calls for another look.

        Raises:
            ApiError: the API server did not do what it was asked.
            LeadershipLost: nothing more may be written.
        """
        attempt = _Attempt(self._cluster)
        await self._cluster.look_at_occupants(key)
        for _ in range(MAX_PASSES):
            body = self._store.family(key).body
            if body is None or text(body, "metadata", "deletionTimestamp"):
                self._verdicts.pop(key, None)
                self._cluster.forget(key)
                return None
            try:
                subject = Subject.of(body)
            except InvalidDeployment as error:
                await self._refuse(body, str(error))
                return None
            decided = self._decide(subject, key, attempt)
            if decided.touches_pods and not attempt.has_looked:
                await self._cluster.look_again(key)
                attempt.has_looked = True
                continue
            attempt.has_looked = False
            if not decided.actions and await self._report(subject, decided):
                attempt.raise_failure()
                return decided.requeue_after
            for action in decided.actions:
                if self._is_outdated(subject, key):
                    break
                await self._do(subject, action, attempt)
        raise DoesNotRest(f"not done after {MAX_PASSES} looks")

    def _is_outdated(self, subject: Subject, key: Key) -> bool:
        """Return whether something else is wanted by now: many actions take a while."""
        body = self._store.family(key).body
        now = text(body, "metadata", "uid"), number(body, "metadata", "generation")
        return now != (subject.uid, subject.generation)

    def _decide(self, subject: Subject, key: Key, attempt: _Attempt) -> Plan:
        family = self._store.family(key)
        observed = Observed(
            pods=tuple(family.pods.values()),
            routers=tuple(family.routers.values()),
            children=dict(family.children),
            verdict=attempt.amend(self._verdict(subject, key)),
            refused=attempt.refused,
        )
        decided = plan(subject, observed, self._clock(), self._defaults)
        return attempt.without_failed(decided)

    def _verdict(self, subject: Subject, key: Key) -> Verdict | None:
        question, verdict = self._verdicts.get(key, ("", Verdict()))
        return verdict if question == self._question(subject) else None

    def _question(self, subject: Subject) -> str:
        return f"{subject.uid} {question_of(subject, self._defaults)}"

    async def _do(self, subject: Subject, action: Action, attempt: _Attempt) -> None:
        where = {"namespace": subject.namespace, "sdep": subject.name, "reason": action.reason}
        match action:
            case AskServer():
                verdict = await self._cluster.ask(subject, action)
                key = (subject.namespace, subject.name)
                self._verdicts[key] = (self._question(subject), verdict)
            case CreatePod():
                if await attempt.try_pod(subject, action):
                    name = naming.replica_pod(subject.name, action.index)
                    _log.info("created pod %s: %s", name, action.reason, extra=where)
                    await self._tell(subject, "ReplicaCreated", f"pod {name}: {action.reason}")
            case DeletePod():
                if await self._cluster.delete_pod(subject, action):
                    name = action.pod.name
                    _log.info("deleted pod %s: %s", name, action.reason, extra=where)
                    await self._tell(subject, "ReplicaDeleted", f"pod {name}: {action.reason}")
            case TakeOver():
                await self._cluster.take_over(subject, action)
            case CreateChild() | ApplyChild():
                _log.info("%s: %s", _named(action.body), action.reason, extra=where)
                await attempt.try_child(subject, action)
            case DeleteChild():
                await self._cluster.delete_child(subject, action)

    async def _tell(self, subject: Subject, reason: str, message: str) -> None:
        await self._cluster.tell(subject, Happening(reason=reason, message=message))

    async def _report(self, subject: Subject, decided: Plan) -> bool:
        """Write the status and the Events; False if the object has changed meanwhile."""
        if decided.status is None or decided.status == subject.status:
            return True
        if not await self._cluster.write_status(subject, decided.status):
            return False
        where = {"namespace": subject.namespace, "sdep": subject.name}
        for happening in decided.happenings:
            said = {**where, "reason": happening.reason}
            _log.info("%s: %s", happening.reason, happening.message, extra=said)
            await self._cluster.tell(subject, happening)
        return True

    async def _refuse(self, body: Body, error: str) -> None:
        """Say that the object cannot be read; its children are left alone."""
        subject = Subject.unreadable(body)
        condition = Condition(
            type="Accepted",
            status="False",
            observed_generation=number(body, "metadata", "generation"),
            last_transition_time=timestamps.write(self._clock()),
            reason="InvalidSpec",
            message=error,
        )
        before = read_status(body)
        kept = tuple(one for one in before.conditions if one.type != condition.type)
        old = next((one for one in before.conditions if one.type == condition.type), None)
        if old is not None and (old.status, old.message) == (condition.status, error):
            return
        status = before.model_copy(update={"conditions": (condition, *kept)})
        await self._cluster.write_status(subject, status)


def _named(body: Body) -> str:
    return f"{text(body, 'kind')} {text(body, 'metadata', 'name')}"


class _Attempt:
    """What one reconcile has tried in vain: it goes into the status, and is tried again later."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.has_looked = False
        self.refused: dict[int, str] = {}
        self._failed: dict[tuple[str, str], Refused] = {}

    async def try_pod(self, subject: Subject, action: CreatePod) -> bool:
        if self.refused:
            return False
        try:
            await self._cluster.create_pod(subject, action)
        except Refused as error:
            if error.status == _TOO_MANY or is_leaving(error):
                raise
            self.refused[action.index] = error.message
            return False
        return True

    async def try_child(self, subject: Subject, action: CreateChild | ApplyChild) -> None:
        try:
            if isinstance(action, CreateChild):
                await self._cluster.create_child(subject, action)
            else:
                await self._cluster.apply_child(subject, action)
        except Refused as error:
            _raise_if_passing(error)
            key = text(action.body, "kind"), text(action.body, "metadata", "name")
            self._failed[key] = error

    def amend(self, verdict: Verdict | None) -> Verdict | None:
        """Count what the API server would not take as its objection to the router."""
        wrong = [error for error in self._failed.values() if is_template_error(error)]
        if not wrong:
            return verdict
        return Verdict(replica=verdict.replica if verdict else "", router=wrong[0].message)

    def without_failed(self, decided: Plan) -> Plan:
        """Leave out what has just failed."""
        actions = tuple(one for one in decided.actions if not self._has_failed(one))
        return Plan(
            actions=actions,
            status=decided.status,
            happenings=decided.happenings,
            requeue_after=decided.requeue_after,
        )

    def _has_failed(self, action: Action) -> bool:
        match action:
            case CreatePod():
                # What one pod was refused for, the others would be too.
                return bool(self.refused)
            case CreateChild() | ApplyChild():
                return (
                    text(action.body, "kind"),
                    text(action.body, "metadata", "name"),
                ) in self._failed
            case _:
                return False

    def raise_failure(self) -> None:
        """Call for another try of the children that failed."""
        for error in self._failed.values():
            raise error


def _raise_if_passing(error: Refused) -> None:
    """Let the work queue try again what has nothing to do with the object itself."""
    if error.status >= _SERVER_ERROR or error.status == _TOO_MANY or is_leaving(error):
        raise error
