"""Who leads: a Lease that one operator holds at a time.

The holder renews it every 2 s. It may write for 10 s after the beginning of its last renewal, by
its own monotonic clock; others wait for 15 s without a change, by theirs. So nobody's clock is
compared with another's, and between the two there is time for a write that is on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from serving_contract.kubernetes import OPERATOR
from serving_operator.body import Body, fields, number, text
from serving_operator.errors import ApiError, LeadershipLost, Refused
from serving_operator.kinds import LEASE

DURATION_S: Final = 15
RENEW_DEADLINE_S: Final = 10.0
RETRY_S: Final = 2.0
_TRY_S: Final = 5.0
_MARGIN_S: Final = 0.5
"""One that is merely cut off stands down so long before the deadline; only one that was stopped or
starved meets the deadline at a write, and exits."""
_NOT_FOUND: Final = 404

_log = logging.getLogger(__name__)


class Leases(Protocol):
    """What is needed of the API."""

    async def get(self, path: str) -> Body: ...
    async def create_lease(self, path: str, body: Body) -> Body: ...
    async def replace(self, path: str, body: Body) -> Body: ...


class Elector:
    """Runs for leadership, again and again.

    Args:
        namespace: where the Lease lies.
        identity: what this process calls itself.
        exit_at_once: ends the process, when it finds out too late that it no longer leads.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        namespace: str,
        identity: str,
        exit_at_once: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._namespace = namespace
        self._identity = identity
        self._exit_at_once = exit_at_once
        self._clock = clock
        self._renewed_at: float | None = None
        self._seen: tuple[str, str] | None = None
        self._seen_at = 0.0

    @property
    def is_leader(self) -> bool:
        """Whether this process may write now."""
        return self._renewed_at is not None and not self._is_late

    @property
    def _is_late(self) -> bool:
        return self._renewed_at is None or self._clock() >= self._renewed_at + RENEW_DEADLINE_S

    def gate(self) -> None:
        """Let a write pass.

        Raises:
            LeadershipLost: another operator may be at work.
        """
        if self._renewed_at is None:
            raise LeadershipLost("this operator does not lead")
        if self._is_late:
            self._exit_at_once()
            raise LeadershipLost("the lease ran out while a write was due")

    async def run(self, leases: Leases, lead: Callable[[], Awaitable[None]]) -> None:
        """Call `lead` whenever this process leads, and cancel it when that ends; for ever."""
        while True:
            await self._acquire(leases)
            _log.info("leading as %s", self._identity)
            leading = asyncio.ensure_future(lead())
            try:
                await self._renew_until_lost(leases, leading)
            finally:
                self._renewed_at = None
                leading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await leading
            _log.warning("leadership lost; standing by")

    async def _acquire(self, leases: Leases) -> None:
        while not await self._try(leases):  # noqa: ASYNC110 - nobody here sets an event
            await asyncio.sleep(random.uniform(RETRY_S / 2, RETRY_S))  # noqa: S311 - jitter

    async def _renew_until_lost(self, leases: Leases, leading: asyncio.Future[None]) -> None:
        while (left_s := self._left_s) > 0:
            done, _ = await asyncio.wait([leading], timeout=min(RETRY_S, left_s))
            if done:
                # It never ends by itself but by an error, which has to be seen.
                leading.result()
                return
            is_renewed = await self._try(leases, within_s=min(_TRY_S, self._left_s))
            if not is_renewed and self._holder_is_another:
                return

    @property
    def _left_s(self) -> float:
        """Seconds until it is time to stand down."""
        assert self._renewed_at is not None, "asked while leading only"
        return self._renewed_at + RENEW_DEADLINE_S - _MARGIN_S - self._clock()

    @property
    def _holder_is_another(self) -> bool:
        return self._seen is not None and self._seen[0] not in {"", self._identity}

    async def _try(self, leases: Leases, within_s: float = _TRY_S) -> bool:
        """Take or renew the Lease; False if it is another's or the API server does not answer."""
        began_at = self._clock()
        path = LEASE.object(self._namespace, OPERATOR)
        try:
            async with asyncio.timeout(within_s):
                lease = await self._read(leases, path)
                if lease is None:
                    body = self._lease({}, took_over=True)
                    await leases.create_lease(LEASE.collection(self._namespace), body)
                elif self._may_take(lease):
                    took_over = text(lease, "spec", "holderIdentity") != self._identity
                    await leases.replace(path, self._lease(lease, took_over=took_over))
                else:
                    return False
        except (ApiError, TimeoutError) as error:
            _log.debug("lease: %s", error)
            return False
        self._renewed_at = began_at
        return True

    async def _read(self, leases: Leases, path: str) -> Body | None:
        try:
            return await leases.get(path)
        except Refused as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    def _may_take(self, lease: Body) -> bool:
        holder = text(lease, "spec", "holderIdentity")
        seen = (holder, text(lease, "metadata", "resourceVersion"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()
        duration_s = number(lease, "spec", "leaseDurationSeconds") or DURATION_S
        has_run_out = self._clock() >= self._seen_at + duration_s
        return holder in {"", self._identity} or has_run_out

    def _lease(self, before: Body, *, took_over: bool) -> Body:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict(fields(before, "spec"))
        transitions = number(spec, "leaseTransitions")
        if took_over:
            spec |= {"acquireTime": now, "leaseTransitions": transitions + bool(before)}
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION_S,
            "renewTime": now,
        }
        metadata = {"name": OPERATOR, "namespace": self._namespace, **fields(before, "metadata")}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": LEASE.name,
            "metadata": metadata,
            "spec": spec,
        }

    async def release(self, leases: Leases) -> None:
        """Give the Lease up, so that another need not wait for its end."""
        path = LEASE.object(self._namespace, OPERATOR)
        with contextlib.suppress(ApiError):
            lease = await leases.get(path)
            if text(lease, "spec", "holderIdentity") == self._identity:
                spec = {**fields(lease, "spec"), "holderIdentity": ""}
                await leases.replace(path, {**lease, "spec": spec})
