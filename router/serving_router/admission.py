"""The door: which request is let in now, and to which replica."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

from serving_contract.deployment import Policy
from serving_contract.headers import MAX_RETRY_AFTER_S
from serving_router import policy
from serving_router.affinity import Sessions
from serving_router.errors import NoReplicaReady, QueueFull
from serving_router.ledger import FREE, Charge, Reservation
from serving_router.load_table import LoadTable
from serving_router.replica import Candidate

_UNKNOWN_RATE_RETRY_S: Final = 10
"""`Retry-After` of a full queue that was never seen to drain."""


class Admission:
    """Lets requests in while one routable replica has room; reserves where it sends them.

    Args:
        table: where the numbers come from and the reservations go.
        chosen_by: the order among replicas that have room.
        max_pending_tokens: of one replica; above it with requests waiting it has no room.
        sessions: a session's replica is kept while it is routable and has room.
    """

    def __init__(
        self,
        table: LoadTable,
        *,
        chosen_by: Policy,
        max_pending_tokens: int,
        sessions: Sessions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._order = policy.order_of(chosen_by)
        self._max_pending_tokens = max_pending_tokens
        self._sessions = sessions
        self._clock = clock

    def reserve(
        self, charge: Charge, *, session: str | None = None, avoid: Collection[str] = ()
    ) -> Reservation:
        """Choose a replica and reserve on it.

        Args:
            charge: what the request is expected to cost; a free one is let in always.
            session: the client's session, if it names one.
            avoid: URLs of replicas that failed this request before.

        Raises:
            NoReplicaReady: none is routable (or all are to be avoided).
            QueueFull: every routable replica is full.
        """

        def choose(candidates: Sequence[Candidate]) -> Candidate:
            routable = [candidate for candidate in candidates if candidate.url not in avoid]
            if not routable:
                raise NoReplicaReady("no replica is ready; try again in a moment")
            if charge is FREE:
                return policy.choose(self._order, routable)
            return self._choose(with_room(routable, self._max_pending_tokens), session)

        return self._table.reserve(charge, choose)

    def _choose(self, candidates: Sequence[Candidate], session: str | None) -> Candidate:
        if self._sessions is None or session is None:
            return policy.choose(self._order, candidates)
        now = self._clock()
        bound = self._sessions.replica_of(session, now)
        kept = [candidate for candidate in candidates if candidate.url == bound]
        chosen = policy.choose(self._order, kept or candidates)
        self._sessions.bind(session, chosen.url, now)
        return chosen


def with_room(candidates: Sequence[Candidate], max_pending_tokens: int) -> list[Candidate]:
    """Return those that are not full.

    A replica is full when it owes more than the limit and sequences wait there; one without fresh
    reports when it owes more. The request's own tokens do not count, so an idle replica takes any.

    Raises:
        QueueFull: all are; it says when one will have room at its present speed.
    """
    roomy = [replica for replica in candidates if not _is_full(replica, max_pending_tokens)]
    if not roomy:
        wait_s = min(_seconds_until_room(replica, max_pending_tokens) for replica in candidates)
        raise QueueFull(
            f"every replica owes more than {max_pending_tokens} tokens; try again in {wait_s} s",
            retry_after_s=wait_s,
        )
    return roomy


def _is_full(candidate: Candidate, max_pending_tokens: int) -> bool:
    waits = candidate.waiting is None or candidate.waiting > 0
    return candidate.pending_tokens > max_pending_tokens and waits


def _seconds_until_room(candidate: Candidate, max_pending_tokens: int) -> int:
    excess = candidate.pending_tokens - max_pending_tokens
    if candidate.tokens_per_second <= 0:
        return _UNKNOWN_RATE_RETRY_S
    return max(1, math.ceil(min(excess / candidate.tokens_per_second, MAX_RETRY_AFTER_S)))
