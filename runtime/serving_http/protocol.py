"""uvicorn's httptools protocol with the limits that it does not have.

httptools refuses Content-Length with Transfer-Encoding, repeated Content-Length, folded headers and
bare CR or LF (tried on 0.9, our lower bound). Added here: limits of size and time for head, body
and trailers, OpenAI's error object instead of plain text, and answers without chunks for HTTP/1.0.

It subclasses a private class of uvicorn, whose minor version is therefore held in pyproject.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving_contract.headers import REQUEST_ID
from serving_http.close_delimited import CloseDelimited
from serving_http.errors import ApiError
from serving_http.head import declared_body_bytes, end_of_head, judge, without_upgrade
from serving_http.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn._types import ASGI3Application

PIECE_BYTES: Final = 16 * 1024
"""Fed to the parser at a time: what it keeps to itself is noticed within so many bytes."""

_log = logging.getLogger(__name__)


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Limits are a class attribute: uvicorn makes its protocols by itself."""

    limits: ClassVar[Limits] = Limits()

    _deadline: asyncio.TimerHandle | None = None
    _between_requests = True
    _reading_head = False
    _reading_body = False
    _held = b""
    _head_bytes = 0
    _body_bytes = 0
    _silent_bytes = 0
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
        """Hold a head back until it is whole, then feed the parser."""
        if self._refused:
            return
        if self._deadline is None:
            self._start_clock(self.limits.head_timeout_s, self._head_timed_out)
        if self._between_requests:
            self._held += data
            end = end_of_head(self._held)
            if (end or len(self._held)) > self.limits.max_head_bytes:
                self._refuse_head()
                return
            if end is None:
                return
            data = without_upgrade(self._held[:end]) + self._held[end:]
            self._held = b""
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            self._silent_bytes += len(piece)
            super().data_received(piece)
            if self._refused or self.transport.is_closing():
                return
            if self._silent_bytes > self.limits.max_head_bytes:
                self._refuse_head()
                return

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._between_requests = False
        self._reading_head = True
        self._head_bytes = 0
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Count the request line."""
        super().on_url(url)
        self._silent_bytes = 0
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header line; trailers count as well and are dropped."""
        self._silent_bytes = 0
        self._head_bytes += len(name) + len(value) + len(b": \r\n")
        if self._reading_head:
            super().on_header(name, value)
        elif self._head_bytes > self.limits.max_head_bytes:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """Judge the head before a request is started for it."""
        self._reading_head = False
        self._reading_body = True
        if self._refused:
            return
        if self._head_bytes > self.limits.max_head_bytes:
            self._refuse_head()
        elif declared_body_bytes(self.headers) > self.limits.max_body_bytes:
            self._refuse_body()
        elif error := judge(self.headers, self.parser.get_http_version()):
            self._refuse(error)
        else:
            self._start_clock(self.limits.body_timeout_s, self._body_timed_out)
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count the body, which may come in chunks of undeclared length."""
        if self._refused:
            return
        self._silent_bytes = 0
        self._body_bytes += len(body)
        if self._body_bytes > self.limits.max_body_bytes:
            self._refuse_body()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the clock: the request is here whole."""
        self._between_requests = True
        self._reading_body = False
        if self._refused:
            return
        self._stop_clock()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Close after an answer that came before its request was whole: its rest is no request."""
        if self._reading_body and self.cycle.response_complete:
            self._read_no_more()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed."""
        self._refuse(ApiError(400, "the request is not valid HTTP/1.1"))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if cycle.scope["http_version"] == "1.0":
            cycle.send = CloseDelimited(cycle).send  # type: ignore[method-assign]
        super()._start_asgi_task(cycle, app)

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
        identity = uuid.uuid4().hex
        _log.info("refused with %d: %s (request %s)", error.status, error, identity)
        if self._drop_current_request():
            self._refused = True
            self.transport.close()
            return
        self.transport.write(_response(error, identity))
        self._read_no_more()

    def _read_no_more(self) -> None:
        """Throw away what the client still sends and close soon, so that it can read the answer."""
        self._refused = True
        self._stop_clock()
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


def guarded_by(limits: Limits) -> type[GuardedProtocol]:
    """Return the protocol class with these limits."""
    return type("LimitedProtocol", (GuardedProtocol,), {"limits": limits})


def _response(error: ApiError, identity: str) -> bytes:
    body = error.body()
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"{REQUEST_ID}: {identity}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
