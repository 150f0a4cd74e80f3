"""Lines of a child's standard error, however long they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Yield each line without its end; one beyond the stream's limit comes in pieces.

    The stream is read to its end: a child whose pipe nobody reads stands still.
    """
    while line := await _read_line(stream):
        yield line.decode(errors="replace").rstrip()


async def _read_line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError as overrun:
        return await stream.read(max(1, overrun.consumed))
