"""A real server on loopback, and raw sockets to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from serving_http.app import create_app
from serving_http.auth import FixedApiKeys
from serving_http.body import read_json
from serving_http.errors import ApiError
from serving_http.limits import Limits
from serving_http.serve import bind, running
from serving_http.tls import Tls

Serving = Callable[..., AbstractAsyncContextManager[tuple[str, int]]]
Exchange = Callable[..., Awaitable[bytes]]


class Item(BaseModel):
    name: str
    sizes: list[int] = []


@contextlib.asynccontextmanager
async def _no_lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield


def make_app(keys: list[str] | None = None) -> FastAPI:
    api_keys = None if keys is None else FixedApiKeys(keys)
    app = create_app(title="test", lifespan=_no_lifespan, api_keys=api_keys)

    @app.post("/v1/items")
    async def items(request: Request) -> Response:
        item = await read_json(request, Item)
        return PlainTextResponse(item.name)

    @app.get("/stream")
    async def stream() -> Response:
        async def parts() -> AsyncIterator[bytes]:
            for part in (b"one ", b"two ", b"three"):
                yield part
                await asyncio.sleep(0)

        return StreamingResponse(parts(), media_type="text/plain")

    @app.post("/headers")
    async def headers(request: Request) -> Response:
        await request.body()
        return PlainTextResponse(" ".join(request.headers.keys()))

    @app.get("/plain")
    async def plain() -> Response:
        return PlainTextResponse("plain")

    @app.get("/refuse")
    async def refuse() -> Response:
        raise ApiError(429, "too busy", code="queue_full", headers={"retry-after": "3"})

    @app.get("/bug")
    async def bug() -> Response:
        raise ZeroDivisionError

    return app


@pytest.fixture
def serving() -> Serving:
    @contextlib.asynccontextmanager
    async def serve(
        *, limits: Limits | None = None, keys: list[str] | None = None, tls: Tls | None = None
    ) -> AsyncIterator[tuple[str, int]]:
        listener = bind("127.0.0.1", 0)
        address: tuple[str, int] = listener.getsockname()
        app = make_app(keys)
        async with running(app, sockets=[listener], limits=limits or Limits(), tls=tls):
            yield address

    return serve


async def talk(address: tuple[str, int], raw: bytes, *, half_close: bool = False) -> bytes:
    """Send raw bytes and read until the server closes; waits at most 20 s."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(raw)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
def exchange() -> Exchange:
    return talk
