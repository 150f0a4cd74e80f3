"""Faults of the API server that a real one cannot be made to have when a test wants it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from tests.router.api_server import (
    FixedAccess,
    Follower,
    Handler,
    ScriptedApiServer,
    answering,
    bookmark,
    discovery,
    event,
    hanging_up,
    refusing,
    slices_api,
)
from tests.router.slices import endpoint, slice_of

from serving_router.api_access import Access, trusting
from serving_router.errors import DiscoveryFailed, Forbidden, HistoryGone, Unauthorized
from serving_router.slices_api import MAX_RETRY_AFTER_S

Follow = Callable[..., Follower]

A = slice_of("s", endpoint("10.0.0.1", "m-0"), version=2)
B = slice_of("t", endpoint("10.0.0.2", "m-1"), version=3)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedApiServer]:
    server = ScriptedApiServer()
    server.slices = [A]
    async with server.running():
        yield server


@pytest.fixture
async def follow(server: ScriptedApiServer) -> AsyncIterator[Follow]:
    """Follow the server's slices."""
    followers: list[Follower] = []

    def start(access: FixedAccess | None = None, silence_s: float = 60.0) -> Follower:
        access = access or FixedAccess(server.url)
        followers.append(Follower(discovery(access, silence_s=silence_s).watch()))
        return followers[-1]

    yield start
    for follower in followers:
        await follower.stop()


async def test_watch_goes_on_where_the_list_ended(
    server: ScriptedApiServer, follow: Follow
) -> None:
    server.version = 17
    follower = follow()
    (await server.watch()).put_nowait(event("ADDED", B))
    await follower.until_pods("m-0", "m-1")
    listed, watched = server.asked
    assert listed == {"labelSelector": "kubernetes.io/service-name=m-replicas", "limit": "500"}
    assert 240 <= int(watched.pop("timeoutSeconds")) <= 300
    assert watched == {
        "labelSelector": "kubernetes.io/service-name=m-replicas",
        "watch": "true",
        "resourceVersion": "17",
        "allowWatchBookmarks": "true",
    }


async def test_list_of_several_pages_is_one_set(server: ScriptedApiServer, follow: Follow) -> None:
    server.slices, server.page_size = [A, B], 1
    follower = follow()
    await follower.until_pods("m-0", "m-1")
    assert len(follower.sets) == 1
    assert [query.get("continue") for query in server.asked[:2]] == [None, "1"]


async def test_pages_that_expire_are_asked_for_anew(
    server: ScriptedApiServer, follow: Follow
) -> None:
    server.slices, server.page_size = [A, B], 1

    async def expire_the_next(request: web.Request) -> web.StreamResponse:
        server.faults.append(refusing(410, "The provided continue parameter is too old"))
        return web.json_response({"metadata": {"resourceVersion": "1", "continue": "1"}})

    server.faults.append(expire_the_next)
    follower = follow()
    await follower.until_pods("m-0", "m-1")
    assert len(follower.sets) == 1


async def test_ended_watch_goes_on_without_a_list(
    server: ScriptedApiServer, follow: Follow
) -> None:
    follower = follow()
    first = await server.watch()
    first.put_nowait(event("ADDED", B))
    first.put_nowait(bookmark(40))
    first.put_nowait(None)
    (await server.watch(1)).put_nowait(event("DELETED", A))
    await follower.until_pods("m-1")
    assert server.num_lists == 1
    assert server.watched_from == ["1", "40"]


async def test_bookmark_says_that_the_set_is_current(
    server: ScriptedApiServer, follow: Follow
) -> None:
    follower = follow()
    (await server.watch()).put_nowait(bookmark(40))
    await follower.until(lambda: len(follower.sets) == 2)
    assert follower.sets[0] == follower.sets[1]


TOO_OLD = event("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"})
RELISTING: dict[str, bytes] = {
    "410 as an event": TOO_OLD,
    "a line that is not JSON": b"not JSON\n",
    "half a line": event("ADDED", B)[:30],
    "an event that is not known": event("RENAMED", B),
}


@pytest.mark.parametrize("line", RELISTING.values(), ids=RELISTING.keys())
async def test_watch_that_cannot_go_on_lists_and_drops_what_vanished(
    server: ScriptedApiServer, follow: Follow, line: bytes
) -> None:
    follower = follow()
    watch = await server.watch()
    server.slices, server.version = [B], 50
    watch.put_nowait(line)
    watch.put_nowait(None)
    await follower.until_pods("m-1")
    await server.watch(1)
    assert server.num_lists == 2
    assert server.watched_from == ["1", "50"]


async def test_410_as_a_status_lists_as_well(server: ScriptedApiServer, follow: Follow) -> None:
    follower = follow()
    watch = await server.watch()
    server.slices = [B]
    server.faults.append(refusing(410, "too old resource version"))
    watch.put_nowait(None)
    await follower.until_pods("m-1")


async def test_silent_watch_is_given_up_and_listed(
    server: ScriptedApiServer, follow: Follow
) -> None:
    follower = follow(silence_s=0.2)
    await server.watch()
    server.slices = [B]
    await follower.until_pods("m-1")


KEEPING: dict[str, Handler] = {
    "500": refusing(500, "etcd is away"),
    "503": refusing(503, "shutting down"),
    "429": refusing(429, "too many requests", **{"Retry-After": "1"}),
    "403": refusing(403, "forbidden"),
    "401": refusing(401, "Unauthorized"),
    "redirect": refusing(302, "moved", Location="http://127.0.0.1:1/"),
    "connection closed": hanging_up,
    "error as an event": answering(
        event("ERROR", {"code": 500, "message": "etcd is away"}).decode()
    ),
}


@pytest.mark.parametrize("fault", KEEPING.values(), ids=KEEPING.keys())
async def test_refused_watch_keeps_its_place_and_what_is_known(
    server: ScriptedApiServer, follow: Follow, fault: Handler
) -> None:
    follower = follow()
    watch = await server.watch()
    server.slices = []
    server.faults.extend([fault, fault])
    watch.put_nowait(None)
    (await server.watch(1)).put_nowait(event("ADDED", B))
    await follower.until_pods("m-0", "m-1")
    assert server.num_lists == 1
    assert server.watched_from == ["1"] * 4
    assert all(follower.sets)


@pytest.mark.parametrize("fault", [*KEEPING.values(), answering("{")], ids=[*KEEPING, "half"])
async def test_list_is_asked_for_until_it_comes(
    server: ScriptedApiServer, follow: Follow, fault: Handler
) -> None:
    server.faults.extend([fault, fault])
    follower = follow()
    await follower.until_pods("m-0")
    assert len(follower.sets) == 1


async def test_token_is_read_for_each_request(server: ScriptedApiServer, follow: Follow) -> None:
    server.valid_token = "two"
    follower = follow(FixedAccess(server.url, ["one", "two"]))
    await follower.until_pods("m-0")
    assert server.tokens[:2] == ["Bearer one", "Bearer two"]


async def test_access_that_cannot_be_read_is_an_outage(server: ScriptedApiServer) -> None:
    class Broken(FixedAccess):
        def read(self) -> Access:
            raise FileNotFoundError(2, "No such file or directory", "token")

    with pytest.raises(DiscoveryFailed, match="token"):
        await slices_api(Broken(server.url)).list()


STATUSES: dict[str, tuple[Handler, type[DiscoveryFailed], str, int | None]] = {
    "401": (refusing(401, "Unauthorized"), Unauthorized, "401: Unauthorized", None),
    "403": (
        refusing(403, 'User "x" cannot list resource "endpointslices"'),
        Forbidden,
        'cannot list resource "endpointslices"; the router\'s Role needs get, list and watch',
        None,
    ),
    "410": (refusing(410, "too old"), HistoryGone, "too old", None),
    "429": (refusing(429, "slow", **{"Retry-After": "7"}), DiscoveryFailed, "429: slow", 7),
    "429 for a day": (
        refusing(429, "slow", **{"Retry-After": "86400"}),
        DiscoveryFailed,
        "429: slow",
        MAX_RETRY_AFTER_S,
    ),
    "429 until a date": (
        refusing(429, "slow", **{"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
        DiscoveryFailed,
        "429: slow",
        None,
    ),
}


@pytest.mark.parametrize(
    ("fault", "kind", "message", "retry_after_s"), STATUSES.values(), ids=STATUSES.keys()
)
async def test_refusal_says_what_is_wrong(
    server: ScriptedApiServer,
    fault: Handler,
    kind: type[DiscoveryFailed],
    message: str,
    retry_after_s: int | None,
) -> None:
    server.faults.append(fault)
    with pytest.raises(DiscoveryFailed) as raised:
        await slices_api(FixedAccess(server.url)).list()
    assert type(raised.value) is kind
    assert message in str(raised.value)
    assert raised.value.retry_after_s == retry_after_s


async def test_refusal_that_is_not_the_api_servers_is_quoted_by_its_first_line(
    server: ScriptedApiServer,
) -> None:
    async def bad_gateway(request: web.Request) -> web.StreamResponse:
        return web.Response(status=502, text="bad gateway\n<html>")

    server.faults.append(bad_gateway)
    with pytest.raises(DiscoveryFailed, match=r"answered 502: bad gateway$"):
        await slices_api(FixedAccess(server.url)).list()


async def test_closing_ends_the_watch(server: ScriptedApiServer) -> None:
    access = FixedAccess(server.url)
    async with contextlib.aclosing(discovery(access).watch()) as sets:
        await anext(sets)
        waiting = asyncio.ensure_future(anext(sets))
        await server.watch()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_refused_connections_in_a_row_are_one_line(
    follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    class Nowhere(FixedAccess):
        tries = 0
        tried_often = asyncio.Event()

        def read(self) -> Access:
            self.tries += 1
            if self.tries > 5:
                self.tried_often.set()
            return Access(server=self.server, token=None, tls=trusting())

    access = Nowhere("https://127.0.0.1:1")
    with caplog.at_level(logging.INFO, "serving_router.outage"):
        follow(access)
        await access.tried_often.wait()
    [record] = caplog.records
    assert record.getMessage().startswith("the API server cannot be asked: Connect call failed")


async def test_outage_is_told_once(
    server: ScriptedApiServer, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.extend([refusing(500, "etcd is away")] * 5)
    with caplog.at_level(logging.INFO, "serving_router.outage"):
        await follow().until_pods("m-0")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
