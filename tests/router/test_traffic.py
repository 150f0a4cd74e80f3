from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from serving_router.traffic import Traffic

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}


def pass_one(traffic: Traffic) -> None:
    traffic.enter()
    traffic.leave()


async def is_over(drain: asyncio.Task[None]) -> bool:
    """Return whether it ends within a time in which it would have."""
    await asyncio.wait({drain}, timeout=0.1)
    return drain.done()


async def test_drain_without_any_traffic_is_over_at_once() -> None:
    drain = asyncio.create_task(Traffic(quiet_s=1000).wait_over())
    await drain


async def test_drain_waits_for_what_is_in_flight() -> None:
    traffic = Traffic(quiet_s=0)
    traffic.enter()
    drain = asyncio.create_task(traffic.wait_over())
    assert not await is_over(drain)
    traffic.leave()
    await drain


async def test_drain_gives_clients_with_open_connections_the_time_for_one_more() -> None:
    traffic = Traffic(quiet_s=0.05)
    pass_one(traffic)
    drain = asyncio.create_task(traffic.wait_over())
    await asyncio.sleep(0)
    assert not drain.done()
    traffic.enter()
    assert not await is_over(drain)
    traffic.leave()
    await drain


async def test_drain_does_not_wait_for_connections_that_were_idle_for_long() -> None:
    now = 0.0
    traffic = Traffic(quiet_s=1000, idle_timeout_s=75, clock=lambda: now)
    pass_one(traffic)
    now += 75
    await traffic.wait_over()


@pytest.mark.parametrize("is_draining", [False, True])
def test_answer_closes_its_connection_while_draining(is_draining: bool) -> None:
    traffic = Traffic()
    traffic.is_draining = is_draining
    sent = traffic.closing(START)
    assert ((b"connection", b"close") in sent["headers"]) is is_draining
    assert (b"a", b"b") in sent["headers"]


def test_body_passes_as_it_is_while_draining() -> None:
    traffic = Traffic()
    traffic.is_draining = True
    body: Message = {"type": "http.response.body", "body": b"x"}
    assert traffic.closing(body) is body
