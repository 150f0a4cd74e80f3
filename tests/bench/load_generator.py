"""Closed-loop load over raw asyncio connections, cheap beside what it measures."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

PROMPT = "x" * 400


@dataclass(slots=True)
class Figures:
    """What came back; times in seconds."""

    requests: int = 0
    events: int = 0
    first_byte: list[float] = field(default_factory=list)

    def percentile(self, part: float) -> float:
        """Return the first-byte time that `part` of the requests stayed within."""
        ordered = sorted(self.first_byte)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def request_bytes(model: str, *, stream: bool, max_tokens: int) -> bytes:
    """Return a whole chat request."""
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": max_tokens,
            "stream": stream,
        }
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def load(
    port: int, request: bytes, *, connections: int, seconds: float, pause_s: float = 0.0
) -> Figures:
    """Send one request after the other on each connection until the time is over."""
    figures = Figures()
    until = time.perf_counter() + seconds
    answer = _read_stream if b'"stream": true' in request else _read_whole

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while time.perf_counter() < until:
                await _exchange(reader, writer, request, answer, figures)
                if pause_s:
                    await asyncio.sleep(pause_s)
        finally:
            writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return figures


ReadAnswer = Callable[[asyncio.StreamReader, bytes, Figures], Awaitable[None]]


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: bytes,
    read_answer: ReadAnswer,
    figures: Figures,
) -> None:
    begun = time.perf_counter()
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    figures.first_byte.append(time.perf_counter() - begun)
    await read_answer(reader, head, figures)
    figures.requests += 1


async def _read_whole(reader: asyncio.StreamReader, head: bytes, figures: Figures) -> None:
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    await reader.readexactly(int(lengths[0].partition(b":")[2]))


async def _read_stream(reader: asyncio.StreamReader, head: bytes, figures: Figures) -> None:
    data = await reader.readuntil(b"\r\n0\r\n\r\n")
    assert b"[DONE]" in data, "a stream that broke off"
    figures.events += data.count(b"data: {")
