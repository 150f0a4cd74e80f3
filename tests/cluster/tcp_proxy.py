"""A pass-through before the API server that fails as networks do: cut, frozen, refusing.

It moves bytes and knows neither TLS nor HTTP, so the client behind it meets the real server with
its real certificate, and other clients are not disturbed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Final, Self

from tests.cluster.ports import free_port

_HOST: Final = "127.0.0.1"
_CHUNK: Final = 65536
_CALL_TIMEOUT_S: Final = 30


class TcpProxy:
    """Listens on `port` of 127.0.0.1 and passes on to `target_port` there; a context manager."""

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._flowing = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._passages: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The API server's address by way of this."""
        return f"https://localhost:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.thaw()
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Close every connection; new ones are accepted."""
        self._call(self._cut())

    def freeze(self) -> None:
        """Keep connections, accept new ones, and move no byte."""
        self._call(self._let_flow(False))

    def thaw(self) -> None:
        """Move the bytes again, those that waited first."""
        self._call(self._let_flow(True))

    def refuse(self) -> None:
        """Refuse new connections; those that are open go on."""
        self._call(self._refuse())

    def accept(self) -> None:
        """Accept connections, at the same address as before."""
        self._call(self._accept())

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_TIMEOUT_S)

    async def _let_flow(self, flows: bool) -> None:
        if flows:
            self._flowing.set()
        else:
            self._flowing.clear()

    async def _accept(self) -> None:
        self._server = await asyncio.start_server(self._begin, _HOST, self.port)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _cut(self) -> None:
        for passage in self._passages:
            passage.cancel()
        await asyncio.gather(*self._passages, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passage = self._loop.create_task(self._pass(reader, writer))
        self._passages.add(passage)
        passage.add_done_callback(self._passages.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(writer.transport.abort)
            with contextlib.suppress(OSError):
                above, below = await asyncio.open_connection(_HOST, self._target_port)
                stack.callback(below.transport.abort)
                await self._both_ways((reader, below), (above, writer))

    async def _both_ways(self, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        pumps = [asyncio.create_task(self._pump(*way)) for way in ways]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
