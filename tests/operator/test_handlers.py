"""The session through which kopf works: it tells of lists, and a 401 does not end the process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from serving_operator import handlers
from serving_operator.access import Access
from serving_operator.handlers import login_of

PODS = "/api/v1/pods"


class Server:
    """Answers anything, and remembers who asked."""

    def __init__(self) -> None:
        self.url = ""
        self.authorizations: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.authorizations.append(request.headers.get("Authorization", ""))
        return web.json_response({"items": []})


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


async def fetch(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(url) as answer:
        assert answer.status == 200


async def test_list_is_told_though_it_is_empty_and_a_watch_is_not(server: Server) -> None:
    told: list[str] = []
    access = Access(server=server.url, tls=None, authorization=lambda: "")
    made = await login_of(access, lambda: told.append("list"))()
    async with made.aiohttp_session as session:
        await fetch(session, f"{server.url}{PODS}?watch=true&resourceVersion=1")
        assert told == []
        await fetch(session, f"{server.url}{PODS}?limit=50")
        assert told == ["list"]


async def test_each_request_bears_the_token_of_its_time(server: Server) -> None:
    tokens = iter(["Bearer 1", "Bearer 2"])
    access = Access(server=server.url, tls=None, authorization=lambda: next(tokens))
    made = await login_of(access, lambda: None)()
    async with made.aiohttp_session as session:
        await fetch(session, f"{server.url}{PODS}")
        await fetch(session, f"{server.url}{PODS}")
    assert server.authorizations == ["Bearer 1", "Bearer 2"]


async def test_login_after_a_refusal_is_another_one_with_the_same_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handlers, "_LOGIN_PAUSE_S", 0.0)
    login = login_of(Access(server="http://x", tls=None, authorization=lambda: "t"), lambda: None)
    first, second = await login(), await login()
    assert first != second
    for made in (first, second):
        await made.aiohttp_session.close()
