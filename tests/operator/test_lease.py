"""The elector's arithmetic, on a clock that the test moves; test_leadership has the real thing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import pytest

from serving_operator.errors import LeadershipLost, Refused, Unavailable
from serving_operator.lease import DURATION_S, RENEW_DEADLINE_S, Elector


class Leases:
    """One Lease, as an API server keeps it."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.is_away = False

    async def get(self, path: str) -> dict[str, Any]:
        if self.is_away:
            raise Unavailable("away")
        if self.lease is None:
            raise Refused(404, "NotFound", "")
        return self.lease

    async def create_lease(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        return self._write({**body, "metadata": {"resourceVersion": "0"}})

    async def replace(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        assert self.lease is not None
        written: dict[str, Any] = dict(body)
        if written["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Refused(409, "Conflict", "")
        return self._write(written)

    def _write(self, body: dict[str, Any]) -> dict[str, Any]:
        version = int(body["metadata"]["resourceVersion"]) + 1
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}
        return self.lease

    @property
    def holder(self) -> str:
        assert self.lease is not None
        holder: str = self.lease["spec"]["holderIdentity"]
        return holder


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def elector(clock: Clock, name: str = "a", exits: list[str] | None = None) -> Elector:
    ends = [] if exits is None else exits
    return Elector(
        namespace="ns", identity=name, exit_at_once=lambda: ends.append(name), clock=clock
    )


async def leading(one: Elector, leases: Leases) -> asyncio.Task[None]:
    """Run for leadership until it leads."""
    leads = asyncio.Event()

    async def lead() -> None:
        leads.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(one.run(leases, lead))
    await asyncio.wait_for(leads.wait(), 30)
    return task


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_first_one_takes_the_lease_and_may_write() -> None:
    leases, clock = Leases(), Clock()
    one = elector(clock)
    with pytest.raises(LeadershipLost):
        one.gate()
    task = await leading(one, leases)
    one.gate()
    assert (leases.holder, one.is_leader) == ("a", True)
    await end(task)


async def test_write_after_the_deadline_ends_the_process() -> None:
    leases, clock, exits = Leases(), Clock(), list[str]()
    one = elector(clock, exits=exits)
    task = await leading(one, leases)
    clock.now += RENEW_DEADLINE_S
    assert not one.is_leader
    with pytest.raises(LeadershipLost):
        one.gate()
    assert exits == ["a"]
    await end(task)


async def test_second_one_waits_until_the_lease_has_run_out_by_its_own_clock() -> None:
    leases, clock = Leases(), Clock()
    holder = await leading(elector(clock, "a"), leases)
    await end(holder)
    other = elector(clock, "b")
    assert not await other._try(leases)
    clock.now += DURATION_S - 1
    assert not await other._try(leases)
    clock.now += 1
    assert await other._try(leases)
    assert leases.holder == "b"
    assert leases.lease is not None
    assert leases.lease["spec"]["leaseTransitions"] == 1


async def test_renewal_starts_the_wait_anew() -> None:
    leases, clock = Leases(), Clock()
    one, other = elector(clock, "a"), elector(clock, "b")
    assert await one._try(leases)
    assert not await other._try(leases)
    clock.now += DURATION_S - 1
    assert await one._try(leases)
    assert not await other._try(leases)
    clock.now += DURATION_S - 1
    assert not await other._try(leases)


async def test_lease_that_was_given_up_is_taken_at_once() -> None:
    leases, clock = Leases(), Clock()
    one, other = elector(clock, "a"), elector(clock, "b")
    assert await one._try(leases)
    await one.release(leases)
    assert leases.holder == ""
    assert await other._try(leases)


async def test_restarted_process_of_the_same_name_goes_on_at_once() -> None:
    leases, clock = Leases(), Clock()
    assert await elector(clock, "a")._try(leases)
    assert await elector(clock, "a")._try(leases)


async def test_lease_of_another_is_not_given_up() -> None:
    leases, clock = Leases(), Clock()
    assert await elector(clock, "a")._try(leases)
    await elector(clock, "b").release(leases)
    assert leases.holder == "a"


async def test_api_server_that_is_away_lets_nobody_lead() -> None:
    leases, clock = Leases(), Clock()
    leases.is_away = True
    assert not await elector(clock)._try(leases)
