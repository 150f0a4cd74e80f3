"""The operator's own HTTP server: /healthz, /readyz, /metrics."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Health(Protocol):
    """What the probes tell."""

    @property
    def is_alive(self) -> bool: ...
    @property
    def is_ready(self) -> bool: ...
    def exposition(self) -> bytes: ...


@contextlib.asynccontextmanager
async def probes(health: Health, *, host: str, port: int) -> AsyncIterator[None]:
    """Answer inside the context.

    Raises:
        OSError: the port is in use.
    """
    app = web.Application()
    app.router.add_get("/healthz", _verdict(lambda: health.is_alive, "a reconcile is stuck"))
    app.router.add_get("/readyz", _verdict(lambda: health.is_ready, "the first lists are not in"))
    app.router.add_get("/metrics", _metrics(health))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()


def _verdict(is_fine: Callable[[], bool], reason: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="ok") if is_fine() else web.Response(text=reason, status=503)

    return answer


def _metrics(health: Health) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE_LATEST}
        return web.Response(body=health.exposition(), headers=headers)

    return answer
