"""An API server that knows EndpointSlices only and fails as it is told.

For faults that a real one cannot be made to have; everything else is tested against a real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from tests.router.slices import Body

from serving_router.api_access import Access
from serving_router.cluster_discovery import ClusterDiscovery
from serving_router.outage import Outage
from serving_router.replica import Replica
from serving_router.slices_api import SlicesApi

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
NAMESPACE, SERVICE = "ns", "m-replicas"
PATH = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"


class ScriptedApiServer:
    """Serves lists and watches on loopback.

    Attributes:
        slices: what a list shows.
        version: of the list.
        page_size: how many slices a page holds.
        faults: each answers one request instead of us, in order.
        asked: the queries that came, as dicts, in order.
        tokens: the Authorization headers that came.
        valid_token: others get 401; None = any is valid.
        watches: the open ones' lines; None ends a watch.
    """

    def __init__(self) -> None:
        self.slices: list[Body] = []
        self.version = 1
        self.page_size = 100
        self.faults: deque[Handler] = deque()
        self.asked: list[dict[str, str]] = []
        self.tokens: list[str | None] = []
        self.valid_token: str | None = None
        self.watches: list[asyncio.Queue[bytes | None]] = []
        self.watch_opened = asyncio.Event()
        self.url = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_get(PATH, self._answer)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield
        finally:
            await runner.cleanup()

    @property
    def num_lists(self) -> int:
        return sum("watch" not in query for query in self.asked)

    @property
    def watched_from(self) -> list[str]:
        """The versions at which watches were to begin."""
        return [query["resourceVersion"] for query in self.asked if "watch" in query]

    async def watch(self, number: int = 0) -> asyncio.Queue[bytes | None]:
        """Wait for the so-many-th watch and return where its lines go."""
        while len(self.watches) <= number:
            self.watch_opened.clear()
            await self.watch_opened.wait()
        return self.watches[number]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        self.tokens.append(request.headers.get("Authorization"))
        if self.faults:
            return await self.faults.popleft()(request)
        if self.valid_token and self.tokens[-1] != f"Bearer {self.valid_token}":
            return refusal(401, "Unauthorized")
        return await (self._watch(request) if "watch" in request.query else self._list(request))

    async def _list(self, request: web.Request) -> web.StreamResponse:
        start = int(request.query.get("continue", "0"))
        end = start + self.page_size
        metadata = {"resourceVersion": str(self.version)}
        if end < len(self.slices):
            metadata["continue"] = str(end)
        return web.json_response({"metadata": metadata, "items": self.slices[start:end]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        stream = web.StreamResponse(headers={"content-type": "application/json"})
        await stream.prepare(request)
        self.watches.append(lines)
        self.watch_opened.set()
        while (line := await lines.get()) is not None:
            await stream.write(line)
        return stream


def refusal(status: int, message: str, **headers: str) -> web.Response:
    """Return a Status as an API server sends it."""
    body = {"kind": "Status", "code": status, "message": message}
    return web.json_response(body, status=status, headers=headers)


def refusing(status: int, message: str = "no", **headers: str) -> Handler:
    """Return a fault: this refusal."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        return refusal(status, message, **headers)

    return refuse


def answering(body: str) -> Handler:
    """Return a fault: this body with status 200."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=body)

    return answer


async def hanging_up(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


def event(kind: str, body: Body) -> bytes:
    """Return a line of a watch."""
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    """Return a bookmark."""
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


@dataclass
class FixedAccess:
    """Plain HTTP to one address; the token may be changed."""

    server: str
    tokens: list[str] = field(default_factory=lambda: ["one"])
    namespace: str | None = None

    def read(self) -> Access:
        token = self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]
        return Access(server=self.server, token=token, tls=None)


def slices_api(access: FixedAccess, **settings: Any) -> SlicesApi:
    return SlicesApi(access, namespace=NAMESPACE, service=SERVICE, **settings)


class Follower:
    """Reads a discovery in a task of its own.

    Attributes:
        sets: every set that came.
    """

    def __init__(self, sets: AsyncGenerator[tuple[Replica, ...], None]) -> None:
        self.sets: list[tuple[Replica, ...]] = []
        self._came = asyncio.Event()
        self._task = asyncio.create_task(self._read(sets))

    async def _read(self, sets: AsyncGenerator[tuple[Replica, ...], None]) -> None:
        async with contextlib.aclosing(sets):
            async for replicas in sets:
                self.sets.append(replicas)
                self._came.set()

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    @property
    def pods(self) -> list[str | None]:
        """The pods of the newest set."""
        return [replica.pod for replica in self.sets[-1]]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds after some set; a fault of the discovery ends the wait."""
        async with asyncio.timeout(60):
            while not (self.sets and holds()):
                self._came.clear()
                came = asyncio.create_task(self._came.wait())
                await asyncio.wait([came, self._task], return_when=asyncio.FIRST_COMPLETED)
                came.cancel()
                if self._task.done():
                    self._task.result()

    async def until_pods(self, *pods: str) -> None:
        """Wait until these are the pods."""
        await self.until(lambda: self.pods == list(pods))


def impatient() -> Outage:
    """Return an outage whose pauses are over at once."""
    return Outage(uniform=lambda low, high: 0.0)


def discovery(access: FixedAccess, **settings: Any) -> ClusterDiscovery:
    return ClusterDiscovery(slices_api(access, **settings), impatient())
