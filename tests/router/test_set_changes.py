"""What a change of the replica set does to requests, streams and reports that are on their way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
import pytest

from serving_router.discovery import LocalDiscovery, StaticDiscovery
from serving_router.replica import Replica

if TYPE_CHECKING:
    from tests.router.conftest import Eventually, FakeReplica, Fleet, RouterUnderTest, StartRouter

Change = Callable[[Replica], Replica]
LAST_SYNC = "ascend_serving_router_discovery_last_sync_seconds"


def loading(replica: Replica) -> Replica:
    return replace(replica, ready=False, serving=False)


def leaving(replica: Replica) -> Replica:
    return replace(replica, ready=False, terminating=True)


def left(replica: Replica) -> Replica:
    return replace(leaving(replica), serving=False)


async def set_and_wait(
    router: RouterUnderTest,
    discovery: LocalDiscovery,
    replicas: Iterable[Replica],
    eventually: Eventually,
) -> None:
    """Change the set and wait until the router has it."""
    replicas = tuple(replicas)
    discovery.set(replicas)

    async def is_known() -> bool:
        rows = router.router.table.loads()
        return [row.url for row in rows] == [replica.url for replica in replicas]

    await eventually(is_known)


async def begin_stream(router: RouterUnderTest, replica: FakeReplica) -> aiohttp.ClientResponse:
    replica.steps = asyncio.Semaphore(1)
    response: aiohttp.ClientResponse = await router.chat(stream=True).__aenter__()
    await response.content.readuntil(b"\n\n")
    return response


async def end_stream(response: aiohttp.ClientResponse, replica: FakeReplica) -> bytes:
    assert replica.steps is not None
    for _ in range(replica.tokens):
        replica.steps.release()
    return await response.read()


async def answers_come_from(router: RouterUnderTest, name: str) -> bool:
    seen = set()
    for _ in range(4):
        async with router.chat() as response:
            await response.read()
            seen.add(response.headers["x-ascend-serving-replica"])
    return seen == {name}


GOING: dict[str, Change] = {
    "terminates": leaving,
    "terminates and serves no more": left,
    "is no longer ready": loading,
}


@pytest.mark.parametrize("change", GOING.values(), ids=GOING.keys())
async def test_replica_that_goes_ends_its_streams_and_gets_no_more(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually, change: Change
) -> None:
    going, staying = await fleet(2)
    discovery = LocalDiscovery([going.replica])
    router = await start_router([going], discovery=discovery)
    stream = await begin_stream(router, going)
    await set_and_wait(router, discovery, [change(going.replica), staying.replica], eventually)
    assert await answers_come_from(router, "r1")
    assert (await end_stream(stream, going)).endswith(b"[DONE]\n\n")


@pytest.mark.parametrize("change", GOING.values(), ids=GOING.keys())
async def test_reports_of_a_replica_that_goes_are_still_read(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually, change: Change
) -> None:
    [replica] = await fleet(1)
    discovery = LocalDiscovery([replica.replica])
    router = await start_router([replica], discovery=discovery)
    watcher = replica.watchers[0]
    await set_and_wait(router, discovery, [change(replica.replica)], eventually)
    replica.push(pending_output_tokens=7)

    async def is_read() -> bool:
        return bool((await router.loads())["r0"]["pending_tokens"] == 7)

    await eventually(is_read)
    assert replica.watchers == [watcher]


async def test_stream_of_a_replica_that_vanished_goes_on_to_its_end(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    gone, staying = await fleet(2)
    discovery = LocalDiscovery([gone.replica])
    router = await start_router([gone], discovery=discovery)
    stream = await begin_stream(router, gone)
    await set_and_wait(router, discovery, [staying.replica], eventually)
    assert await answers_come_from(router, "r1")
    assert (await end_stream(stream, gone)).endswith(b"[DONE]\n\n")


async def test_serving_replicas_are_asked_when_all_turn_unready_at_once(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    first, second = await fleet(2)
    discovery = LocalDiscovery([first.replica, second.replica])
    router = await start_router([first, second], discovery=discovery)
    changed = [leaving(first.replica), loading(second.replica)]
    await set_and_wait(router, discovery, changed, eventually)
    assert await answers_come_from(router, "r0")
    async with router.session.get("/ready") as response:
        assert response.status == 503


async def test_loading_replica_is_left_alone_until_it_serves(
    fleet: Fleet,
    start_router: StartRouter,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ready, unready = await fleet(2)
    await unready.die()
    discovery = LocalDiscovery([ready.replica, loading(unready.replica)])
    with caplog.at_level(logging.INFO, "serving_router"):
        router = await start_router([ready], discovery=discovery)
        for _ in range(3):
            ready.end_watches()
            await another_watch(ready, eventually)
    assert not [record for record in caplog.records if "r1" in record.getMessage()][1:]
    await unready.restart()
    assert not unready.watchers
    await set_and_wait(router, discovery, [ready.replica, unready.replica], eventually)

    async def is_read() -> bool:
        return bool((await router.loads())["r1"]["epoch"] == unready.epoch)

    await eventually(is_read)


async def another_watch(replica: FakeReplica, eventually: Eventually) -> None:
    before = replica.watchers[0]

    async def is_another() -> bool:
        return replica.watchers[0] is not before

    await eventually(is_another)


async def test_new_pod_at_the_same_address_is_asked_anew(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    [replica] = await fleet(1)
    old, new = (replace(replica.replica, uid=uid) for uid in ("old", "new"))
    replica.load = {"pending_output_tokens": 9}
    discovery = LocalDiscovery([old])
    router = await start_router([replica], discovery=discovery)
    replica.load = {}
    discovery.set([new])
    await another_watch(replica, eventually)

    async def is_new() -> bool:
        row = (await router.loads())["r0"]
        return bool(row["epoch"] and row["pending_tokens"] == 0)

    await eventually(is_new)


async def test_set_that_is_known_to_be_current_moves_the_time_and_nothing_else(
    fleet: Fleet,
    start_router: StartRouter,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    [replica] = await fleet(1)
    discovery = LocalDiscovery([replica.replica])
    with caplog.at_level(logging.INFO, "serving_router.app"):
        router = await start_router([replica], discovery=discovery)
        before = await router.metric(LAST_SYNC)
        discovery.set([replica.replica])

        async def is_later() -> bool:
            return await router.metric(LAST_SYNC) > before

        await eventually(is_later)
    assert [record.getMessage() for record in caplog.records] == [
        "replicas: r0 added (ready); 1 of 1 ready"
    ]


async def test_set_that_is_final_is_always_current(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica], discovery=StaticDiscovery([replica.replica]))
    before = await router.metric(LAST_SYNC)

    async def is_later() -> bool:
        return await router.metric(LAST_SYNC) > before

    await eventually(is_later)
