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

_PROXIED: Final = frozenset(Route)
_MODELS: Final = "/v1/models"


def is_proxied(path: str) -> bool:
    """Return whether requests for a path go to a replica."""
    return path in _PROXIED or path == _MODELS or path.startswith(_MODELS + "/")


class Traffic:
    """The requests in flight."""

    def __init__(self) -> None:
        self.is_draining = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        """Count a request in."""
        self._in_flight += 1
        self._idle.clear()

    def leave(self) -> None:
        """Count it out."""
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until no request is in flight."""
        await self._idle.wait()


class CountTraffic:
    """ASGI middleware around everything that a proxied request passes."""

    def __init__(self, app: ASGIApp, *, traffic: Traffic, metrics: Metrics) -> None:
        self._app = app
        self._traffic = traffic
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_proxied(scope["path"]):
            await self._app(scope, receive, send)
            return
        passage = _Passage(send, self._traffic, self._metrics.time_to_first_token.observe)
        self._traffic.enter()
        try:
            await self._app(scope, receive, passage.send)
        finally:
            self._traffic.leave()
            self._metrics.requests.labels(str(passage.status)).inc()
            self._metrics.duration.observe(passage.age_s)


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
        headers = list(message.get("headers", []))
        self._awaits_first = any(
            name == b"content-type" and value.startswith(b"text/event-stream")
            for name, value in headers
        )
        if self._traffic.is_draining:
            headers.append((b"connection", b"close"))
        return {**message, "headers": headers}
