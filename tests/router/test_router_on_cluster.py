"""The router's own process before real parts: an API server, a network that fails, replicas."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.ports import free_port
from tests.cluster.tcp_proxy import TcpProxy
from tests.router.published import SERVICE, PublishedService
from tests.router.slices import LEAVING, READY, endpoint

if TYPE_CHECKING:
    from tests.router.conftest import Eventually, FakeReplica, Fleet

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def own_address() -> str:
    """An address of this machine that EndpointSlices may hold; they refuse loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent, suppress(OSError):
        unsent.connect(("192.0.2.1", 9))  # sends nothing; chooses the address to send from
        address: str = unsent.getsockname()[0]
        if not address.startswith("127."):
            return address
    pytest.skip("this machine has no address but loopback")


@pytest.fixture
def proxy(control_plane: Cluster) -> Iterator[TcpProxy]:
    if not isinstance(control_plane, ControlPlane):
        pytest.skip("a network that fails needs a control plane on this machine")
    with TcpProxy(control_plane.port) as proxy:
        yield proxy


@pytest.fixture
def service(control_plane: Cluster, namespace: str) -> PublishedService:
    return PublishedService(control_plane, namespace)


class RouterProcess:
    """`ascend-serving router` as a process."""

    def __init__(self, process: asyncio.subprocess.Process, session: aiohttp.ClientSession) -> None:
        self.process = process
        self.session = session

    async def health(self) -> int:
        """Return the status of `/health`, 0 if nobody listens."""
        try:
            async with self.session.get("/health") as response:
                return response.status
        except aiohttp.ClientConnectionError:
            return 0

    async def pods(self) -> list[str]:
        async with self.session.get("/v1/load") as response:
            rows = (await response.json())["replicas"]
        return [row["pod"] for row in rows if row["state"] == "ready"]

    async def who_answers(self) -> str:
        """Send one request and return which replica answered it."""
        async with self.session.post("/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200, await response.text()
            return response.headers["x-ascend-serving-replica"]

    async def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        os.kill(self.process.pid, signal.SIGTERM)
        async with asyncio.timeout(60):
            return await self.process.wait()


Start = Callable[..., Awaitable[RouterProcess]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start routers with these flags; they are gone after the test."""
    started: list[RouterProcess] = []

    async def start(*flags: str | Path) -> RouterProcess:
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "serving_cli.entry", "router", "--port", str(port)),
            *map(str, flags),
        )
        timeout = aiohttp.ClientTimeout(total=60)
        session = aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=timeout)
        started.append(RouterProcess(process, session))
        return started[-1]

    yield start
    for router in started:
        await router.session.close()
        if router.process.returncode is None:
            router.process.kill()
            await router.process.wait()


def flags_of(service: PublishedService, proxy: TcpProxy) -> tuple[str | Path, ...]:
    kubeconfig = service.kubeconfig(server=proxy.url)
    where = ("--service", SERVICE, "--namespace", service.namespace)
    return *where, "--kubeconfig", kubeconfig, "--served-model-name", "tiny"


def publish(
    service: PublishedService, replica: FakeReplica, conditions: dict[str, bool] | None = READY
) -> None:
    """Publish a replica in a slice of its own, since each has another port."""
    ports: list[dict[str, Any]] = [{"name": "http", "port": replica.port, "protocol": "TCP"}]
    pod = endpoint(replica.host, replica.name, None, conditions)
    service.publish(replica.name, pod, ports=ports)


async def test_requests_are_answered_all_through_an_outage_of_the_api_server(
    service: PublishedService,
    proxy: TcpProxy,
    own_address: str,
    fleet: Fleet,
    start: Start,
    eventually: Eventually,
) -> None:
    first, second = await fleet(2, own_address)
    publish(service, first)
    publish(service, second)
    router = await start(*flags_of(service, proxy))
    await eventually(lambda: knows(router, "r0", "r1"))
    assert {await router.who_answers() for _ in range(8)} == {"r0", "r1"}
    proxy.refuse()
    proxy.cut()
    service.withdraw("r1")
    for _ in range(20):
        assert await router.who_answers() in {"r0", "r1"}
    assert await router.pods() == ["r0", "r1"]
    assert await router.health() == 200
    proxy.accept()
    await eventually(lambda: knows(router, "r0"))
    assert {await router.who_answers() for _ in range(4)} == {"r0"}
    assert await router.stop() == 0


async def knows(router: RouterProcess, *pods: str) -> bool:
    return await router.health() == 200 and await router.pods() == list(pods)


async def test_terminating_replica_ends_its_streams_and_gets_no_more(
    service: PublishedService,
    proxy: TcpProxy,
    own_address: str,
    fleet: Fleet,
    start: Start,
    eventually: Eventually,
) -> None:
    first, second = await fleet(2, own_address)
    publish(service, first)
    router = await start(*flags_of(service, proxy))
    await eventually(lambda: knows(router, "r0"))
    first.steps = asyncio.Semaphore(1)
    async with router.session.post("/v1/chat/completions", json={**CHAT, "stream": True}) as stream:
        await stream.content.readuntil(b"\n\n")
        publish(service, second)
        publish(service, first, LEAVING)
        await eventually(lambda: knows(router, "r1"))
        assert {await router.who_answers() for _ in range(4)} == {"r1"}
        for _ in range(first.tokens):
            first.steps.release()
        assert (await stream.read()).endswith(b"[DONE]\n\n")
    assert await router.stop() == 0


async def test_router_without_an_api_server_is_not_healthy_and_ends_at_once_when_told(
    service: PublishedService, proxy: TcpProxy, start: Start, eventually: Eventually
) -> None:
    proxy.refuse()
    router = await start(*flags_of(service, proxy), "--drain-timeout", "600")

    async def is_not_healthy() -> bool:
        return await router.health() == 503

    await eventually(is_not_healthy)
    assert await router.stop() == 0


async def test_router_without_replicas_is_healthy(
    service: PublishedService, proxy: TcpProxy, start: Start, eventually: Eventually
) -> None:
    router = await start(*flags_of(service, proxy), "--host", "0.0.0.0")

    async def is_healthy() -> bool:
        return await router.health() == 200

    await eventually(is_healthy)
    async with router.session.get("/ready") as response:
        assert response.status == 503
    assert await router.stop() == 0
