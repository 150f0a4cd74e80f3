"""Answers without chunks, for clients that do not know them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent


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
