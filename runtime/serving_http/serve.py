"""Runs an application under uvicorn and owns the signals.

uvicorn raises SIGTERM again after its shutdown (tried on 0.54), so that nothing behind it runs and
the exit code is -15; here the first signal drains and the second ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

import uvicorn
from fastapi import FastAPI

from serving_http.limits import Limits
from serving_http.protocol import guarded_by
from serving_http.tls import Tls, ssl_context

_log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_GRACE_S = 5
"""For answers that are being written when the drain is over."""


def bind(host: str, port: int) -> socket.socket:
    """Bind and listen, so that a port in use is found before anything else starts.

    Raises:
        OSError: the address is in use, not ours, or unknown.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


async def serve(
    app: FastAPI,
    *,
    sockets: list[socket.socket],
    limits: Limits,
    tls: Tls | None,
    on_stopping: Callable[[], Coroutine[object, object, None]],
) -> None:
    """Serve until SIGTERM or SIGINT, then `on_stopping()`, then close.

    The listeners stay open during `on_stopping`, which has to end by itself; a second signal cuts
    it short. Cancelling this coroutine stops serving as well.
    """
    async with running(app, sockets=sockets, limits=limits, tls=tls) as server:
        with signals() as (first, second):
            await _first_of(first.wait(), server.wait_ended())
            if not server.has_ended:
                _log.info("draining; a second signal ends at once")
                await _first_of(on_stopping(), second.wait())
            if second.is_set():
                server.end_at_once()


@contextlib.asynccontextmanager
async def running(
    app: FastAPI, *, sockets: list[socket.socket], limits: Limits, tls: Tls | None
) -> AsyncIterator[HttpServer]:
    """Accept connections inside the context; on leaving, answers get a short grace."""
    server = HttpServer(app, limits=limits, tls=tls)
    try:
        await server.start(sockets)
        yield server
    finally:
        await server.stop()


class HttpServer:
    """One uvicorn server inside a running event loop, which installs no signal handlers."""

    def __init__(self, app: FastAPI, *, limits: Limits, tls: Tls | None) -> None:
        config = uvicorn.Config(
            app,
            http=guarded_by(limits),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=int(limits.idle_timeout_s),
            timeout_graceful_shutdown=_GRACE_S,
        )
        config.load()
        config.ssl = None if tls is None else ssl_context(tls)
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self, sockets: list[socket.socket]) -> None:
        """Run the application's lifespan and accept connections.

        Raises:
            RuntimeError: the application failed to start; its log says why.
        """
        self._task = asyncio.create_task(self._server.serve(sockets))
        await _first_of(self._server.accepting.wait(), self.wait_ended())
        if self.has_ended:
            raise RuntimeError("the application failed to start") from self._task.exception()

    @property
    def has_ended(self) -> bool:
        """Whether the server runs no more."""
        return self._task is not None and self._task.done()

    async def wait_ended(self) -> None:
        """Wait until the server has ended, for whatever reason."""
        assert self._task is not None
        await asyncio.wait([self._task])

    async def stop(self) -> None:
        """Close the listeners, let answers end, run the application's lifespan to its end."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait([self._task])

    def end_at_once(self) -> None:
        """Cut every connection, so that `stop` has nothing to wait for."""
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.accepting.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def signals() -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Turn SIGTERM and SIGINT into two events: the first signal, and any further one.

    Afterwards the handlers from before are back: asyncio alone would leave the system's default.
    """
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    first, second = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (second if first.is_set() else first).set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield first, second
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


async def _first_of(*awaitables: Coroutine[object, object, object]) -> None:
    """Wait for one of them and cancel the others; raise what the finished ones raised."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
