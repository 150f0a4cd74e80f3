"""uvicorn's httptools protocol with the limits that it does not have.

httptools refuses Content-Length with Transfer-Encoding, repeated Content-Length, folded headers and
bare CR or LF (tried on 0.9, our lower bound). Added here: limits of size and time for head and
body, OpenAI's error object instead of plain text, and answers without chunks for HTTP/1.0.

It subclasses a private class of uvicorn, whose minor version is therefore bounded in pyproject.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving_http.errors import ApiError
from serving_http.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn._types import ASGI3Application, ASGISendEvent


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Limits are a class attribute: uvicorn makes its protocols by itself."""

    limits: ClassVar[Limits] = Limits()

    _deadline: asyncio.TimerHandle | None = None
    _reading_head = False
    _unread_head_bytes = 0
    _head_bytes = 0
    _body_bytes = 0
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Close the connection if it stays silent."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.limits.idle_timeout_s, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, counting what it has not turned into a head yet."""
        if self._refused:
            return
        if self._deadline is None:
            self._start_clock(self.limits.head_timeout_s, self._head_timed_out)
        self._unread_head_bytes += len(data)
        super().data_received(data)
        if self._reading_head and self._unread_head_bytes > self.limits.max_head_bytes:
            self._refuse_head()

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._reading_head = True
        self._unread_head_bytes = 0
        self._head_bytes = 0
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Count the request line."""
        super().on_url(url)
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header line."""
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + len(b": \r\n")

    def on_headers_complete(self) -> None:
        """Judge the head before a request is started for it."""
        self._reading_head = False
        if self._refused:
            return
        if self._head_bytes > self.limits.max_head_bytes:
            self._refuse_head()
            return
        if self._declared_body_bytes() > self.limits.max_body_bytes:
            self._refuse_body()
            return
        self._start_clock(self.limits.body_timeout_s, self._body_timed_out)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count the body, which may come in chunks of undeclared length."""
        if self._refused:
            return
        self._body_bytes += len(body)
        if self._body_bytes > self.limits.max_body_bytes:
            self._refuse_body()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the clock: the request is here whole."""
        if self._refused:
            return
        self._stop_clock()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Forget the clock of a body that was answered before it was read."""
        if not self.pipeline and not self._reading_head:
            self._stop_clock()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed."""
        self._refuse(ApiError(400, "the request is not valid HTTP/1.1"))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if cycle.scope["http_version"] == "1.0":
            cycle.send = CloseDelimited(cycle).send  # type: ignore[method-assign]
        super()._start_asgi_task(cycle, app)

    def _declared_body_bytes(self) -> int:
        lengths = (value for name, value in self.headers if name == b"content-length")
        return int(next(lengths, b"0"))

    def _start_clock(self, seconds: float, expired: Callable[[], None]) -> None:
        self._stop_clock()
        self._deadline = self.loop.call_later(seconds, expired)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_timed_out(self) -> None:
        seconds = self.limits.head_timeout_s
        self._refuse(ApiError(408, f"the request head was not whole after {seconds:g} s"))

    def _body_timed_out(self) -> None:
        seconds = self.limits.body_timeout_s
        self._refuse(ApiError(408, f"the request body was not whole after {seconds:g} s"))

    def _refuse_head(self) -> None:
        kib = self.limits.max_head_bytes // 1024
        self._refuse(ApiError(431, f"the request head is over {kib} KiB"))

    def _refuse_body(self) -> None:
        limit = self.limits.max_body_bytes
        self._refuse(ApiError(413, f"the request body is over {limit} bytes, see --max-body-mib"))

    def _refuse(self, error: ApiError) -> None:
        """Answer `error` unless an answer has begun, and read no more of this connection."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._stop_clock()
        begun = self._drop_current_request()
        if begun:
            self.transport.close()
            return
        self.transport.write(_response(error))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(self.limits.linger_s, self.transport.close)

    def _drop_current_request(self) -> bool:
        """Tell the application that its client is gone; return whether it has begun to answer."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return cycle.response_started


class CloseDelimited:
    """Sends an answer of unknown length to an HTTP/1.0 client: its end is the connection's end.

    uvicorn would send chunks, which HTTP/1.0 does not know. An answer of known length is passed on;
    for others uvicorn is told that only a head follows, and the body is written here.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._uvicorn_send = cycle.send
        self._writes_body = False

    async def send(self, message: ASGISendEvent) -> None:
        """Send one ASGI message."""
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", [])}
            if b"content-length" not in names and self._cycle.scope["method"] != "HEAD":
                self._writes_body = True
                self._cycle.scope = {**self._cycle.scope, "method": "HEAD"}
        elif message["type"] == "http.response.body" and self._writes_body:
            await self._write(message.get("body", b""))
        await self._uvicorn_send(message)

    async def _write(self, body: bytes) -> None:
        await self._cycle.flow.drain()
        if body and not self._cycle.disconnected:
            self._cycle.transport.write(body)


def guarded_by(limits: Limits) -> type[GuardedProtocol]:
    """Return the protocol class with these limits."""
    return type("LimitedProtocol", (GuardedProtocol,), {"limits": limits})


def _response(error: ApiError) -> bytes:
    body = error.body()
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body
