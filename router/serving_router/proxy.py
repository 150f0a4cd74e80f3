"""Carries a request to a replica and its answer back, as bytes, with retries before the first one.

A client that hangs up ends everything at once, at whatever point; backpressure is that of the two
connections, because each piece is awaited before the next is read.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import ClientResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving_contract.headers import EXPECTED_TOKENS, RESERVATION
from serving_http.errors import ApiError
from serving_http.hang_up import until_hang_up
from serving_router.admission import Admission
from serving_router.call import Call
from serving_router.client import Outgoing
from serving_router.cut import Cut
from serving_router.errors import (
    Rejected,
    ReplicaFailed,
    ReplicaRefused,
    ReplicaUnreachable,
    RouterError,
    RouterStopping,
)
from serving_router.estimates import Estimates
from serving_router.ledger import FREE, Reservation
from serving_router.load_table import LoadTable
from serving_router.metrics import Metrics
from serving_router.relay import Relay
from serving_router.replica import Replica

_log = logging.getLogger(__name__)

MAX_BROKEN_TRIES: Final = 3
"""A request that broke so many replicas is not given to another one."""
NOT_BEGUN: Final = (ReplicaUnreachable, ReplicaRefused)
"""These cost nothing: every replica may be asked once."""


class Replicas(Protocol):
    """Sends requests to replicas."""

    async def send(self, replica: Replica, outgoing: Outgoing) -> ClientResponse:
        """Return the answer once its head is there; the caller closes it.

        Raises:
            ReplicaFailed: there is none.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One request to be answered by some replica.

    Attributes:
        call: what it asks for; None when it costs no tokens.
        session: the client's session, if it names one.
    """

    outgoing: Outgoing
    call: Call | None = None
    session: str | None = None


class Proxy:
    """Answers errands.

    Args:
        replicas: carries bytes.
        table: learns which replica cannot be reached.
        admission: chooses and reserves.
        estimates: what a call costs; learns from whole answers.
        metrics: counts retries.
    """

    def __init__(
        self,
        replicas: Replicas,
        *,
        table: LoadTable,
        admission: Admission,
        estimates: Estimates,
        metrics: Metrics,
    ) -> None:
        self._replicas = replicas
        self._table = table
        self._admission = admission
        self._estimates = estimates
        self._metrics = metrics
        self._cuts: set[Cut] = set()
        self._stopped_by: RouterStopping | None = None

    def stop(self) -> None:
        """End every answer with the typed error and begin no other."""
        self._stopped_by = RouterStopping("the router is shutting down")
        for cut in list(self._cuts):
            cut(self._stopped_by)

    async def answer(self, errand: Errand, send: Send) -> None:
        """Answer an errand, trying other replicas as long as nothing has been sent.

        Raises:
            RouterError: nothing has been sent and nothing will be.
        """
        failure: ReplicaFailed | None = None
        avoid: set[str] = set()
        num_broken = 0
        while num_broken < MAX_BROKEN_TRIES:
            reservation = self._reserve(errand, avoid, failure)
            try:
                await self._try(errand, reservation, send)
                return
            except ReplicaFailed as error:
                failure = error
                self._note(error, reservation.replica)
                num_broken += not isinstance(error, NOT_BEGUN)
                avoid.add(reservation.replica.url)
        assert failure is not None
        raise failure

    def _reserve(
        self, errand: Errand, avoid: set[str], failure: ReplicaFailed | None
    ) -> Reservation:
        if self._stopped_by is not None:
            raise self._stopped_by
        charge = FREE if errand.call is None else self._estimates.charge(errand.call)
        try:
            reservation = self._admission.reserve(charge, session=errand.session, avoid=avoid)
        except Rejected as error:
            raise failure or error from None
        if failure is not None:
            self._metrics.retries.inc()
        return reservation

    def _note(self, failure: ReplicaFailed, replica: Replica) -> None:
        _log.warning("%s", failure)
        if isinstance(failure, ReplicaUnreachable):
            self._table.mark_unreachable(replica)

    async def _try(self, errand: Errand, reservation: Reservation, send: Send) -> None:
        """Make one attempt.

        Raises:
            RouterError: it failed, and nothing has been sent.
        """
        relay = Relay(reservation, send)
        with reservation:
            try:
                async with self._cuttable(reservation):
                    outgoing = _with_reservation(errand, reservation)
                    answer = await self._replicas.send(reservation.replica, outgoing)
                    with contextlib.closing(answer):
                        await relay.carry(answer)
            except RouterError as error:
                if not relay.has_begun:
                    raise
                _log.warning("an answer was cut off: %s", error)
                await relay.break_off(api_error(error))
                return
        self._learn(errand, relay)

    @contextlib.asynccontextmanager
    async def _cuttable(self, reservation: Reservation) -> AsyncIterator[None]:
        async with Cut() as cut:
            self._cuts.add(cut)
            reservation.on_lost = cut
            try:
                yield
            finally:
                self._cuts.discard(cut)

    def _learn(self, errand: Errand, relay: Relay) -> None:
        if errand.call is None or not relay.succeeded:
            return
        usage = relay.usage()
        if usage.prompt_tokens is not None:
            self._estimates.learn_prompt(errand.call, usage.prompt_tokens)
        if usage.completion_tokens is not None:
            self._estimates.learn_output(errand.call, usage.completion_tokens)


def _with_reservation(errand: Errand, reservation: Reservation) -> Outgoing:
    """Add what the replica needs to count this attempt as we do."""
    outgoing = errand.outgoing
    if errand.call is None or not errand.call.route.generates:
        return outgoing
    return outgoing.with_headers(
        (RESERVATION, reservation.id), (EXPECTED_TOKENS, str(reservation.charge.output_tokens))
    )


def api_error(error: RouterError) -> ApiError:
    """Say in OpenAI's words what went wrong."""
    headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    return ApiError(error.status, str(error), code=error.code, headers=headers)


class ProxiedAnswer(Response):
    """The answer of some replica; it is fetched while it is sent."""

    def __init__(self, proxy: Proxy, errand: Errand) -> None:
        super().__init__()
        self._proxy = proxy
        self._errand = errand

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises:
            RouterError: nothing has been sent.
        """
        await until_hang_up(receive, self._proxy.answer(self._errand, send))
