"""One replica process of this machine: started, asked whether it is ready, ended.

Its port is reserved by a socket that is bound and never listens, so that it stays the same over
restarts and refuses connections while the process is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import sys
from collections import deque
from dataclasses import dataclass
from typing import Final

import aiohttp

from serving_cli.errors import CommandFailed
from serving_runtime.config import EngineConfig
from serving_runtime.process_output import lines

HOST: Final = "127.0.0.1"
READY_POLL_S: Final = 0.1
READY_TIMEOUT_S: Final = 5.0
KILL_AFTER_S: Final = 10.0
"""Beyond the drain: for closing files and ending the worker."""
TAIL_LINES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaOrder:
    """What a replica process is told on its standard input."""

    index: int
    config: EngineConfig
    drain_timeout_s: float
    max_body_bytes: int
    log_level: str
    log_format: str


class LocalReplica:
    """A replica that may be started again and again; it owns its port until `close`."""

    def __init__(self, order: ReplicaOrder) -> None:
        self.index = order.index
        self._order = order
        self._reservation = _reserve_port()
        self._process: asyncio.subprocess.Process | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._forwarding: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it answers while it runs."""
        return f"http://{HOST}:{self._port}"

    @property
    def _port(self) -> int:
        port: int = self._reservation.getsockname()[1]
        return port

    async def start(self) -> None:
        """Start the process; it is not ready yet."""
        listener = _listen_on(self._port)
        with contextlib.closing(listener):
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "serving_cli.replica_process",
                str(listener.fileno()),
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        self._tail.clear()
        assert self._process.stderr is not None
        self._forwarding = asyncio.create_task(self._forward(self._process.stderr))
        self._send_order()

    def _send_order(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(pickle.dumps(self._order))
        self._process.stdin.close()

    async def _forward(self, stderr: asyncio.StreamReader) -> None:
        async for text in lines(stderr):
            self._tail.append(text)
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - its log lines are ours

    async def wait_ready(self) -> None:
        """Wait until it has generated its first token.

        Raises:
            CommandFailed: it ended before; names the replica and the cause.
        """
        ended = asyncio.create_task(self.wait_ended())
        ready = asyncio.create_task(self._poll_ready())
        try:
            await asyncio.wait([ended, ready], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise CommandFailed(f"replica {self.index} failed to start: {ended.result()}")
        finally:
            ended.cancel()
            ready.cancel()

    async def _poll_ready(self) -> None:
        timeout = aiohttp.ClientTimeout(total=READY_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            # Another process is asked: there is no event to wait for.
            while not await self._is_ready(client):  # noqa: ASYNC110
                await asyncio.sleep(READY_POLL_S)

    async def _is_ready(self, client: aiohttp.ClientSession) -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with client.get(f"{self.url}/ready") as answer:
                return answer.status == 200
        return False

    async def wait_ended(self) -> str:
        """Wait for its end and return the cause in one line: its last words, or the signal."""
        assert self._process is not None
        assert self._forwarding is not None
        code = await self._process.wait()
        await asyncio.wait([self._forwarding])
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return self._tail[-1] if code > 0 and self._tail else how

    async def stop(self) -> None:
        """Let it drain, then end it and whatever it started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(self._order.drain_timeout_s + KILL_AFTER_S):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End its whole process group at once."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        if self._forwarding is not None:
            await asyncio.wait([self._forwarding])

    def close(self) -> None:
        """Give the port back."""
        self._reservation.close()


def _reserve_port() -> socket.socket:
    return _bound(0)


def _listen_on(port: int) -> socket.socket:
    listener = _bound(port)
    listener.listen(2048)
    return listener


def _bound(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((HOST, port))
    except OSError:
        bound.close()
        raise
    return bound
