"""A replica that costs next to nothing: `python mock_replica.py PORT`.

One asyncio protocol; a plain answer comes at once, a stream has as many events of about 220 bytes
as `max_tokens` says, the first after 20 ms and then one every 20 ms. It also sends load reports.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys

EVENT_INTERVAL_S = 0.020
REPORT_INTERVAL_S = 1.0
TEXT = "x" * 150


def _head(content_type: str, *, length: int | None) -> bytes:
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{size}\r\n\r\n".encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    body = {"id": "mock", "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def _json_answer() -> bytes:
    message = {"role": "assistant", "content": "x" * 400}
    usage = {"prompt_tokens": 100, "completion_tokens": 64, "total_tokens": 164}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    body = json.dumps({"id": "mock", "choices": choices, "usage": usage}).encode()
    return _head("application/json", length=len(body)) + body


ANSWER = _json_answer()
STREAM_HEAD = _head("text/event-stream", length=None)
EVENT = _chunk(_event(TEXT))
STREAM_END = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
MODELS = b'{"object":"list","data":[{"id":"mock","object":"model"}]}'


def _report(seq: int) -> bytes:
    counts = ("pending_prompt_tokens", "pending_output_tokens", "running", "waiting")
    report = {"version": 1, "epoch": "mock", "seq": seq, **dict.fromkeys(counts, 0)}
    report |= {"kv_blocks_used": 0, "kv_blocks_total": 100, "tokens_per_second": 0.0}
    report |= {"draining": False, "accepted": [], "finished": []}
    return _chunk(json.dumps(report).encode() + b"\n")


class MockReplica(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._timers: list[asyncio.TimerHandle] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Stop what is still to be sent."""
        for timer in self._timers:
            timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer once head and body are whole."""
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if separator and len(body) >= _content_length(head):
            self._buffer = b""
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        assert self._transport is not None
        if head.startswith(b"GET /v1/load/watch"):
            self._transport.write(_head("application/x-ndjson", length=None))
            self._send_reports(itertools.count())
        elif head.startswith(b"GET /v1/models"):
            self._transport.write(_head("application/json", length=len(MODELS)) + MODELS)
        elif b'"stream": true' in body:
            self._timers = []
            self._later(lambda: self._stream(json.loads(body)["max_tokens"]))
        else:
            self._transport.write(ANSWER)

    def _send_reports(self, seqs: itertools.count[int]) -> None:
        assert self._transport is not None
        self._transport.write(_report(next(seqs)))
        loop = asyncio.get_running_loop()
        self._timers = [loop.call_later(REPORT_INTERVAL_S, self._send_reports, seqs)]

    def _stream(self, left: int, *, head: bytes = STREAM_HEAD) -> None:
        assert self._transport is not None
        self._transport.write(head + EVENT + (STREAM_END if left == 1 else b""))
        if left > 1:
            self._later(lambda: self._stream(left - 1, head=b""))

    def _later(self, action: object) -> None:
        assert callable(action)
        self._timers = [asyncio.get_running_loop().call_later(EVENT_INTERVAL_S, action)]


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def main(port: int) -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(MockReplica, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
