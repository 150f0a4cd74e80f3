"""Processes under measurement: started, looked at through /proc, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

START_TIMEOUT_S = 120
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def process(command: Sequence[str], port: int) -> AsyncIterator[int]:
    """Run a command that listens on `port`; yields its process id once it does."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, *command, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not await _listens(port):
            assert started.returncode is None, f"{command} ended"
            assert time.monotonic() < deadline, f"{command} does not listen"
            await asyncio.sleep(0.05)
        yield started.pid
    finally:
        await _stop(started)


async def _stop(started: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        started.terminate()
    try:
        async with asyncio.timeout(30):
            await started.wait()
    except TimeoutError:
        started.kill()
        await started.wait()


async def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False


def cpu_seconds(pid: int) -> float:
    """Return user and system seconds of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def rss_mib(pid: int) -> float:
    """Return the resident memory of one process."""
    return _status_kib(pid, "VmRSS") / 1024


def _status_kib(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0


def children_of(pid: int) -> list[int]:
    """Return the processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
