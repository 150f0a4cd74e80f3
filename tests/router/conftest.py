"""A replica that does as it is told, and a router in front of some of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from serving_contract.headers import EXPECTED_TOKENS, PROMPT_TOKENS, RESERVATION
from serving_contract.load import LoadReport
from serving_http.limits import Limits
from serving_http.serve import bind, running
from serving_router.app import Router
from serving_router.discovery import Discovery, LocalDiscovery
from serving_router.replica import Replica
from serving_router.settings import RouterSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MODEL = "tiny"
_epochs = itertools.count()


class FakeReplica:
    """An OpenAI server on loopback with load reports; every answer can be scripted.

    Attributes:
        answer: replaces the handler of the two generating paths.
        reports: whether `/v1/load/watch` exists.
        loading: its watch path answers 503, and so do the generating paths.
        tokens: how many events an answer has.
        steps: if set, each event waits for one release.
        seen: the requests that came, with their bodies.
        hang_ups: how often a client left before its stream ended.
    """

    def __init__(self, name: str, host: str = "127.0.0.1") -> None:
        self.name = name
        self.host = host
        self.answer: Handler = self.generate
        self.reports = True
        self.loading = False
        self.draining = False
        self.tokens = 3
        self.steps: asyncio.Semaphore | None = None
        self.seen: list[tuple[web.Request, bytes]] = []
        self.hang_ups = 0
        self.epoch = f"epoch-{next(_epochs)}"
        self.load: dict[str, Any] = {}
        self.watchers: list[asyncio.Queue[bytes | None]] = []
        self._seqs: list[int] = []
        self._transports: set[asyncio.Transport] = set()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def replica(self) -> Replica:
        return Replica(url=self.url, pod=self.name)

    async def start(self, port: int = 0) -> None:
        app = web.Application(middlewares=[self._record])
        for path in ("/v1/chat/completions", "/v1/completions"):
            app.router.add_post(path, self._answer)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name}", self._model)
        app.router.add_get("/v1/load/watch", self._watch)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def die(self) -> None:
        """End as SIGKILL does: every connection is reset, the port refuses."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for site in list(runner.sites):
            await site.stop()
        for transport in self._transports:
            transport.abort()
        self._transports.clear()
        self.watchers.clear()
        await runner.cleanup()

    async def restart(self) -> None:
        """Come back on the same port as a new process."""
        self.epoch = f"epoch-{next(_epochs)}"
        await self.start(self.port)

    def report(self, **fields: Any) -> bytes:
        """Return a line with these fields; the rest is idle."""
        idle = dict.fromkeys(
            (
                "seq",
                "pending_prompt_tokens",
                "pending_output_tokens",
                "running",
                "waiting",
                "kv_blocks_used",
                "kv_blocks_total",
                "tokens_per_second",
            ),
            0,
        )
        values = {**idle, "epoch": self.epoch, "draining": self.draining, **self.load, **fields}
        return LoadReport.model_validate(values).to_line()

    def push(self, **fields: Any) -> None:
        """Send every watcher its next line."""
        for number, watcher in enumerate(self.watchers):
            self._seqs[number] += 1
            watcher.put_nowait(self.report(**{"seq": self._seqs[number], **fields}))

    def push_raw(self, line: bytes) -> None:
        """Send every watcher this line."""
        for watcher in self.watchers:
            watcher.put_nowait(line)

    def end_watches(self) -> None:
        """End every watch stream."""
        for watcher in self.watchers:
            watcher.put_nowait(None)

    @web.middleware
    async def _record(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        assert isinstance(request.transport, asyncio.Transport)
        self._transports.add(request.transport)
        if not request.path.startswith("/v1/load"):
            self.seen.append((request, await request.read()))
        return await handler(request)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.loading:
            raise web.HTTPServiceUnavailable
        return await self.answer(request)

    async def _tokenize(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"tokens": [1, 2], "count": 2, "max_model_len": 128})

    async def _models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def _model(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"id": request.match_info["name"], "object": "model"})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if not self.reports:
            raise web.HTTPNotFound
        if self.loading:
            raise web.HTTPServiceUnavailable
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.watchers = [lines]
        self._seqs = [0]
        lines.put_nowait(self.report())
        stream = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await stream.prepare(request)
        while (line := await lines.get()) is not None:
            await stream.write(line)
        return stream

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """Answer in full, streamed if the request says so."""
        body = json.loads(await request.read())
        if not body.get("stream"):
            return self.unary()
        try:
            return await self._stream(request, body)
        except (asyncio.CancelledError, ConnectionResetError):
            self.hang_ups += 1
            raise

    def unary(self) -> web.Response:
        usage = {"prompt_tokens": 5, "completion_tokens": self.tokens, "total_tokens": 5}
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "x" * self.tokens},
            "finish_reason": "stop",
        }
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": MODEL}
        return web.json_response(
            {**answer, "choices": [choice], "usage": usage},
            headers={PROMPT_TOKENS: "5", "endpoint-load-metrics": "TEXT named_metrics.x=1"},
        )

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        stream = await self.begin_stream(request)
        for number in range(self.tokens):
            if self.steps is not None:
                await self.steps.acquire()
            await stream.write(self.event(f"t{number} "))
        await stream.write(b"data: [DONE]\n\n")
        return stream

    async def begin_stream(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(
            headers={"content-type": "text/event-stream", PROMPT_TOKENS: "5"}
        )
        await stream.prepare(request)
        return stream

    def event(self, text: str) -> bytes:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
        return b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n"

    @property
    def reservations(self) -> list[str]:
        """The reservation ids that came, in order."""
        return [request.headers[RESERVATION] for request, _ in self.generated]

    @property
    def generated(self) -> list[tuple[web.Request, bytes]]:
        """The requests that generate, in order."""
        return [
            (request, body) for request, body in self.seen if EXPECTED_TOKENS in request.headers
        ]


class RouterUnderTest:
    """A router that listens, and a client for it."""

    def __init__(self, router: Router, url: str, session: aiohttp.ClientSession) -> None:
        self.router = router
        self.url = url
        self.session = session

    async def loads(self) -> dict[str, dict[str, Any]]:
        """Return the rows of `/v1/load` by pod."""
        async with self.session.get("/v1/load") as response:
            rows = (await response.json())["replicas"]
        return {row["pod"]: row for row in rows}

    async def metric(self, sample: str) -> float:
        """Return one sample of `/metrics`, 0.0 if it is absent."""
        async with self.session.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        values = [line.rpartition(" ")[2] for line in lines if line.startswith(sample + " ")]
        return float(values[0]) if values else 0.0

    def chat(self, **fields: Any) -> Any:
        """Begin a chat request."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **fields}
        return self.session.post("/v1/chat/completions", json=body)


Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
Fleet = Callable[..., Awaitable[list[FakeReplica]]]
StartRouter = Callable[..., Awaitable[RouterUnderTest]]


@pytest.fixture
def eventually() -> Eventually:
    """Ask until the answer is yes; give up after a time that no sound run needs."""

    async def wait(holds: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(60):
            while not await holds():  # noqa: ASYNC110 - what is asked for has no event
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """Start so many fake replicas, named r0, r1 and so on."""
    started: list[FakeReplica] = []

    async def start(count: int, host: str = "127.0.0.1") -> list[FakeReplica]:
        replicas = [FakeReplica(f"r{len(started) + number}", host) for number in range(count)]
        started.extend(replicas)
        for replica in replicas:
            await replica.start()
        return replicas

    yield start
    for replica in started:
        await replica.die()


@pytest.fixture
async def start_router(eventually: Eventually) -> AsyncIterator[StartRouter]:
    """Start a router in front of these replicas and wait until each is known to be there."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            replicas: Iterable[FakeReplica] = (),
            *,
            discovery: Discovery | None = None,
            settings: RouterSettings | None = None,
            headers: dict[str, str] | None = None,
        ) -> RouterUnderTest:
            replicas = list(replicas)
            discovery = discovery or LocalDiscovery(replica.replica for replica in replicas)
            router = Router(settings or RouterSettings(served_model_name=MODEL), discovery)
            listener = stack.enter_context(bind("127.0.0.1", 0))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            await stack.enter_async_context(
                running(router.app, sockets=[listener], limits=Limits(), tls=None)
            )
            session = await stack.enter_async_context(
                aiohttp.ClientSession(url, headers=headers, timeout=aiohttp.ClientTimeout(total=60))
            )
            under_test = RouterUnderTest(router, url, session)

            async def reports_are_read() -> bool:
                rows = router.table.loads()
                known = {row.url for row in rows if row.epoch is not None}
                return router.is_alive and known >= {
                    r.url for r in replicas if r.reports and not r.loading
                }

            await eventually(reports_are_read)
            return under_test

        yield start
