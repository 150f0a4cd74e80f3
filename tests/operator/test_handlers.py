"""The session through which kopf works: it tells of lists, and hides a 401 that may pass."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from serving_operator.access import Access
from serving_operator.handlers import session_of

PODS = "/api/v1/pods"


class Server:
    """Answers with a status, and remembers who asked."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.authorizations: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.authorizations.append(request.headers.get("Authorization", ""))
        return web.json_response({"items": []}, status=self.status)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_get(PODS, server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = site.name
    yield server
    await runner.cleanup()


def access_of(server: Server, *tokens: str) -> Access:
    """Each token for one request."""
    left = iter(tokens)
    return Access(server=server.url, tls=None, authorization=lambda: next(left))


async def get(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as answer:
        return answer.status


async def test_list_is_told_though_it_is_empty_and_a_watch_is_not(server: Server) -> None:
    told: list[str] = []
    access = access_of(server, "Bearer 1", "Bearer 1")
    async with session_of(access, lambda: told.append("list")) as session:
        assert await get(session, f"{server.url}{PODS}?watch=true&resourceVersion=1") == 200
        assert told == []
        assert await get(session, f"{server.url}{PODS}?limit=50") == 200
        assert told == ["list"]


async def test_refused_token_looks_like_a_broken_connection_and_the_next_one_is_read(
    server: Server,
) -> None:
    async with session_of(access_of(server, "Bearer 1", "Bearer 2"), lambda: None) as session:
        server.status = 401
        with pytest.raises(aiohttp.ClientConnectionError, match="401"):
            await get(session, f"{server.url}{PODS}")
        server.status = 200
        assert await get(session, f"{server.url}{PODS}") == 200
    assert server.authorizations == ["Bearer 1", "Bearer 2"]
