"""Counts the proxied requests: for the metrics, and for a drain to know when they have ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving_router.call import Route
from serving_router.metrics import Metrics

CLIENT_HUNG_UP: Final = 499
QUIET_S: Final = 1.0
"""By then busy clients have sent one more request, and learned from its answer to go elsewhere."""

_PROXIED: Final = frozenset(Route)
_MODELS: Final = "/v1/models"


def is_proxied(path: str) -> bool:
    """Return whether requests for a path go to a replica."""
    return path in _PROXIED or path == _MODELS or path.startswith(_MODELS + "/")


class Traffic:
    """The requests in flight.

    Args:
        quiet_s: what clients with open connections get for one more request.
        idle_timeout_s: after which the server closes an idle connection.
    """

    def __init__(
        self,
        *,
        quiet_s: float = QUIET_S,
        idle_timeout_s: float = 75.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_draining = False
        self._quiet_s = quiet_s
        self._idle_timeout_s = idle_timeout_s
        self._clock = clock
        self._in_flight = 0
        self._last_left_at: float | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        """Count a request in."""
        self._in_flight += 1
        self._idle.clear()

    def leave(self) -> None:
        """Count it out."""
        self._in_flight -= 1
        self._last_left_at = self._clock()
        if self._in_flight == 0:
            self._idle.set()

    def closing(self, message: Message) -> Message:
        """Let an answer that begins during a drain be the last one of its connection."""
        if not self.is_draining or message["type"] != "http.response.start":
            return message
        return {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}

    async def wait_over(self) -> None:
        """Wait until no request is in flight and no client is likely to send one.

        A client sends its next request on the connection that it has, and closing that under the
        request would fail it. So clients get the time for one more, whose answer says that the
        connection closes; where no connection can be open, there is nothing to wait for.
        """
        await self._idle.wait()
        if self._may_have_connections:
            await asyncio.sleep(self._quiet_s)
            await self._idle.wait()

    @property
    def _may_have_connections(self) -> bool:
        last = self._last_left_at
        return last is not None and self._clock() - last < self._idle_timeout_s


class CountTraffic:
    """ASGI middleware around everything that a proxied request passes."""

    def __init__(self, app: ASGIApp, *, traffic: Traffic, metrics: Metrics) -> None:
        self._app = app
        self._traffic = traffic
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not is_proxied(scope["path"]):
            await self._app(scope, receive, self._closing(send))
            return
        passage = _Passage(send, self._traffic, self._metrics.time_to_first_token.observe)
        self._traffic.enter()
        try:
            await self._app(scope, receive, passage.send)
        finally:
            self._traffic.leave()
            self._metrics.requests.labels(str(passage.status)).inc()
            self._metrics.duration.observe(passage.age_s)

    def _closing(self, send: Send) -> Send:
        async def send_closing(message: Message) -> None:
            await send(self._traffic.closing(message))

        return send_closing


class _Passage:
    """One answer on its way to the client."""

    def __init__(
        self, send: Send, traffic: Traffic, observe_first: Callable[[float], None]
    ) -> None:
        self.status = CLIENT_HUNG_UP
        self._began_at = time.perf_counter()
        self._send = send
        self._traffic = traffic
        self._observe_first = observe_first
        self._awaits_first = False

    @property
    def age_s(self) -> float:
        return time.perf_counter() - self._began_at

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = self._started(message)
        elif self._awaits_first and message.get("body"):
            self._awaits_first = False
            self._observe_first(self.age_s)
        await self._send(message)

    def _started(self, message: Message) -> Message:
        self.status = message["status"]
        headers = message.get("headers", [])
        self._awaits_first = any(
            name == b"content-type" and value.startswith(b"text/event-stream")
            for name, value in headers
        )
        return self._traffic.closing(message)
