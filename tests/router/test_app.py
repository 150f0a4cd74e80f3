from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from serving_http.serve import bind
from serving_router.app import Router, run_router
from serving_router.discovery import LocalDiscovery, StaticDiscovery
from serving_router.replica import Replica
from serving_router.settings import RouterSettings

if TYPE_CHECKING:
    from tests.router.conftest import Eventually, FakeReplica, Fleet, RouterUnderTest, StartRouter


class NeverListed:
    """A discovery whose first list does not come."""

    async def watch(self) -> AsyncGenerator[tuple[Replica, ...], None]:
        await asyncio.Event().wait()
        yield ()


@pytest.fixture
def unlisted() -> NeverListed:
    return NeverListed()


async def test_router_is_not_healthy_before_the_first_list(unlisted: NeverListed) -> None:
    assert not Router(RouterSettings(), unlisted).is_alive


async def test_router_without_replicas_is_healthy_but_not_ready(start_router: StartRouter) -> None:
    router = await start_router()
    async with router.session.get("/health") as health, router.session.get("/ready") as ready:
        assert (health.status, ready.status) == (200, 503)


async def test_router_with_a_replica_is_ready(fleet: Fleet, start_router: StartRouter) -> None:
    router = await start_router(await fleet(1))
    async with router.session.get("/ready") as ready:
        assert ready.status == 200


async def test_request_without_replicas_gets_503(start_router: StartRouter) -> None:
    router = await start_router()
    async with router.chat() as response:
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "no_replica_ready"
        assert response.headers["retry-after"] == "1"
    rejected = 'ascend_serving_router_rejected_total{reason="no_replica_ready"}'
    assert await router.metric(rejected) == 1


async def test_name_is_learned_and_requests_get_503_until_then(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    discovery = LocalDiscovery()
    router = await start_router(discovery=discovery, settings=RouterSettings())
    async with router.chat() as response:
        assert response.status == 503
    [replica] = await fleet(1)
    discovery.set([replica.replica])

    async def is_learned() -> bool:
        async with router.chat() as response:
            return bool(response.status == 200)

    await eventually(is_learned)
    async with router.chat(model="other") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "model_not_found"


async def test_models_are_the_replicas(fleet: Fleet, start_router: StartRouter) -> None:
    router = await start_router(await fleet(1))
    async with router.session.get("/v1/models") as response:
        assert (await response.json())["data"][0]["id"] == "tiny"
    async with router.session.get("/v1/models/org%2Fname?x=1") as response:
        assert (await response.json())["id"] == "org/name"


async def test_path_with_bytes_that_no_url_may_hold_is_quoted(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    host, port = router.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/models/\xc3\xbc HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert b" 500 " not in (await reader.read()).splitlines()[0]
    writer.close()
    await writer.wait_closed()


async def test_tokenize_is_the_replicas(fleet: Fleet, start_router: StartRouter) -> None:
    router = await start_router(await fleet(1))
    async with router.session.post("/tokenize", json={"prompt": "hi"}) as response:
        assert (await response.json())["count"] == 2


async def test_tokenize_costs_nothing(fleet: Fleet, start_router: StartRouter) -> None:
    [replica] = await fleet(1)
    replica.load = {"pending_output_tokens": 70_000, "waiting": 1}
    router = await start_router([replica])
    async with router.session.post("/tokenize", json={"prompt": "hi"}) as response:
        assert response.status == 200


async def test_load_table_has_the_promised_fields(fleet: Fleet, start_router: StartRouter) -> None:
    router = await start_router(await fleet(1))
    assert set((await router.loads())["r0"]) == {
        "url",
        "pod",
        "state",
        "epoch",
        "seq",
        "report_age_seconds",
        "pending_tokens",
        "reserved_tokens",
        "reservations",
        "in_flight",
    }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", "/nowhere", 404, id="unknown path"),
        pytest.param("GET", "/v1/chat/completions", 405, id="wrong method"),
        pytest.param("POST", "/v1/load", 405, id="wrong method on our own"),
    ],
)
async def test_wrong_path_or_method_gets_an_openai_error(
    start_router: StartRouter, method: str, path: str, status: int
) -> None:
    router = await start_router()
    async with router.session.request(method, path) as response:
        assert response.status == status
        assert set((await response.json())["error"]) == {"message", "type", "param", "code"}
        assert ("allow" in response.headers) == (status == 405)


KEYED = RouterSettings(served_model_name="tiny", api_keys=("sk-1",))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/load"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
    ],
)
async def test_key_is_asked_for(start_router: StartRouter, method: str, path: str) -> None:
    router = await start_router(settings=KEYED)
    async with router.session.request(method, path) as response:
        assert response.status == 401
        assert (await response.json())["error"]["code"] == "invalid_api_key"


async def test_folder_without_keys_lets_nobody_in(
    fleet: Fleet, start_router: StartRouter, tmp_path: Path
) -> None:
    settings = RouterSettings(served_model_name="tiny", api_keys_dir=tmp_path)
    router = await start_router(await fleet(1), settings=settings)
    for token in ("", "guess"):
        async with router.session.post(
            "/v1/chat/completions", headers={"authorization": f"Bearer {token}"}, json={}
        ) as response:
            assert response.status == 401


async def test_dashboard_asks_for_the_key(start_router: StartRouter) -> None:
    """The page is open and holds no numbers; they come from a path that wants the key."""
    router = await start_router(settings=KEYED)
    async with router.session.get("/") as response:
        page = await response.text()
    assert 'id="key"' in page
    assert 'type="password"' in page
    async with router.session.get("/v1/load") as response:
        assert response.status == 401


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/docs", "/openapi.json"])
async def test_open_path_needs_no_key(start_router: StartRouter, path: str) -> None:
    router = await start_router(settings=KEYED)
    async with router.session.get(path) as response:
        assert response.status == 200


async def test_right_key_opens(fleet: Fleet, start_router: StartRouter) -> None:
    router = await start_router(
        await fleet(1), settings=KEYED, headers={"authorization": "Bearer sk-1"}
    )
    async with router.chat() as response:
        assert response.status == 200


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_page_works_without_internet(start_router: StartRouter, path: str) -> None:
    router = await start_router()
    async with router.session.get(path) as response:
        page = await response.text()
    foreign = page.replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in foreign
    assert "https://" not in foreign


async def test_openapi_describes_requests_answers_and_errors(start_router: StartRouter) -> None:
    router = await start_router()
    async with router.session.get("/openapi.json") as response:
        schema: dict[str, Any] = await response.json()
    text = json.dumps(schema)
    names = schema["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert references <= set(names)
    chat = schema["paths"]["/v1/chat/completions"]["post"]
    assert "$ref" in chat["requestBody"]["content"]["application/json"]["schema"]
    assert "messages" in names["ChatRequest"]["properties"]
    assert set(schema["paths"]) >= {"/v1/completions", "/v1/models", "/tokenize", "/detokenize"}


async def test_metrics_have_the_promised_names(fleet: Fleet, start_router: StartRouter) -> None:
    router = await start_router(await fleet(1))
    async with router.chat(stream=True) as response:
        await response.read()
    prefix = "ascend_serving_router_"
    assert await router.metric(prefix + 'requests_total{code="200"}') == 1
    assert await router.metric(prefix + "request_duration_seconds_count") == 1
    assert await router.metric(prefix + "time_to_first_token_seconds_count") == 1
    assert await router.metric(prefix + "discovery_last_sync_seconds") > 1_000_000_000
    async with router.session.get("/metrics") as response:
        text = await response.text()
    for name in ("replica_pending_tokens", "replica_in_flight"):
        assert f'{prefix}{name}{{replica="r0"}} 0.0' in text
    for name in ("rejected_total", "retries_total"):
        assert f"# TYPE {prefix}{name} counter" in text


async def begin_stream(router: RouterUnderTest, replica: FakeReplica) -> aiohttp.ClientResponse:
    replica.steps = asyncio.Semaphore(1)
    response: aiohttp.ClientResponse = await router.chat(stream=True).__aenter__()
    await response.content.readuntil(b"\n\n")
    return response


async def test_drain_waits_for_a_stream(fleet: Fleet, start_router: StartRouter) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    response = await begin_stream(router, replica)
    draining = asyncio.create_task(router.router.drain())
    async with router.session.get("/ready") as ready:
        assert ready.status == 503
    assert not draining.done()
    assert replica.steps is not None
    for _ in range(replica.tokens):
        replica.steps.release()
    assert (await response.read()).endswith(b"[DONE]\n\n")
    await draining


async def test_draining_router_answers_with_connection_close(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    stream = await begin_stream(router, replica)
    draining = asyncio.create_task(router.router.drain())
    async with router.session.get("/ready") as ready:
        assert ready.status == 503
        assert ready.headers["connection"] == "close"
    async with router.chat() as response:
        assert response.status == 200
        assert response.headers["connection"] == "close"
    stream.close()
    await draining


async def test_end_of_the_drain_gives_streams_the_typed_error(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)
    settings = RouterSettings(served_model_name="tiny", drain_timeout_s=0.0)
    router = await start_router([replica], settings=settings)
    response = await begin_stream(router, replica)
    await router.router.drain()
    rest = await response.read()
    assert b"shutting down" in rest
    assert b"[DONE]" not in rest
    async with router.chat() as late:
        assert late.status == 503


async def test_port_in_use_is_an_os_error() -> None:
    with bind("127.0.0.1", 0) as taken:
        settings = RouterSettings(port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            await run_router(settings, StaticDiscovery([]))


ROUTER = """
import asyncio, sys
from serving_http.serve import bind
from serving_router.app import Router, run_router
from serving_router.discovery import StaticDiscovery, parse_replicas
from serving_router.settings import RouterSettings

listener = bind("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
settings = RouterSettings(served_model_name="tiny", drain_timeout_s=float(sys.argv[2]))
asyncio.run(run_router(settings, StaticDiscovery(parse_replicas(sys.argv[1])), listener=listener))
"""


StartProcess = Callable[["FakeReplica"], Awaitable[tuple[asyncio.subprocess.Process, int]]]


@pytest.fixture
async def start_process() -> AsyncIterator[StartProcess]:
    """Start a router as a process of its own; it is gone after the test."""
    started: list[asyncio.subprocess.Process] = []

    async def start(replica: FakeReplica) -> tuple[asyncio.subprocess.Process, int]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ROUTER, replica.url, "30", stdout=asyncio.subprocess.PIPE
        )
        started.append(process)
        assert process.stdout is not None
        return process, int(await process.stdout.readline())

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_process_that_is_told_to_end_finishes_its_stream_and_exits_with_0(
    fleet: Fleet, eventually: Eventually, start_process: StartProcess
) -> None:
    [replica] = await fleet(1)
    replica.steps = asyncio.Semaphore(1)
    process, port = await start_process(replica)
    body = {"model": "tiny", "messages": [], "stream": True}
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        session.post("/v1/chat/completions", json=body) as response,
    ):
        await response.content.readuntil(b"\n\n")
        os.kill(process.pid, signal.SIGTERM)

        async def drains() -> bool:
            async with session.get("/ready") as ready:
                return ready.status == 503

        await eventually(drains)
        for _ in range(replica.tokens):
            replica.steps.release()
        assert (await response.read()).endswith(b"[DONE]\n\n")
    assert await process.wait() == 0


async def test_clients_with_open_connections_lose_no_request_when_the_router_goes(
    fleet: Fleet, start_process: StartProcess
) -> None:
    """Each sends one request after another until an answer says that the connection closes."""
    [replica] = await fleet(1)
    process, port = await start_process(replica)
    body = {"model": "tiny", "messages": []}
    busy = asyncio.Semaphore(0)

    async def ask_until_told_to_go() -> int:
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", connector=connector
        ) as session:
            while True:
                async with session.post("/v1/chat/completions", json=body) as response:
                    await response.read()
                busy.release()
                if response.headers.get("connection") == "close":
                    return response.status

    async with asyncio.TaskGroup() as clients:
        asking = [clients.create_task(ask_until_told_to_go()) for _ in range(8)]
        for _ in range(80):
            await busy.acquire()
        os.kill(process.pid, signal.SIGTERM)
    assert {task.result() for task in asking} == {200}
    assert await process.wait() == 0


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_probe_may_ask_with_head(fleet: Fleet, start_router: StartRouter, path: str) -> None:
    router = await start_router(await fleet(1))
    async with router.session.head(path) as response:
        assert response.status == 200


async def test_client_that_hangs_up_in_its_body_is_counted_as_499(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    router = await start_router(await fleet(1))
    host, _, port = router.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"
    writer.write(head)
    await writer.drain()
    writer.close()

    async def is_counted() -> bool:
        sample = 'ascend_serving_router_requests_total{code="499"}'
        return await router.metric(sample) == 1

    await eventually(is_counted)
