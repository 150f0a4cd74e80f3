"""What the router costs beside two mock replicas: CPU per request and event, added first byte.

"direct" is the load generator straight to a mock: the zero of the added times.
"""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

from tests.bench.load_generator import Figures, load, request_bytes
from tests.bench.processes import cpu_seconds, free_port, process, rss_mib

MOCK = str(Path(__file__).with_name("mock_replica.py"))
SECONDS = 3.0
ROUNDS = 3
EVENTS = 64


def run() -> None:
    """Print the figures."""
    asyncio.run(_measure())


async def _measure() -> None:
    first, second, port = free_port(), free_port(), free_port()
    urls = f"http://127.0.0.1:{first},http://127.0.0.1:{second}"
    command = ["-m", "serving_cli.entry", "router", "--replicas", urls, "--port", str(port)]
    async with (
        process([MOCK, str(first)], first),
        process([MOCK, str(second)], second),
        process([*command, "--served-model-name", "mock"], port) as router,
    ):
        plain = request_bytes("mock", stream=False, max_tokens=64)
        stream = request_bytes("mock", stream=True, max_tokens=EVENTS)
        await load(port, plain, connections=16, seconds=1)
        await _cost("json, 64 connections at once", router, port, plain, connections=64)
        await _cost("json, 4 connections, paced", router, port, plain, connections=4, pause=0.02)
        await _cost("sse, 16 streams of 64 events", router, port, stream, connections=16)
        await _added_first_byte(first, port, plain)
        print(f"resident memory after all: {rss_mib(router):.0f} MiB")


async def _cost(
    name: str, router: int, port: int, request: bytes, *, connections: int, pause: float = 0.0
) -> None:
    per_request, per_event, rates = [], [], []
    for _ in range(ROUNDS):
        before = cpu_seconds(router)
        figures = await load(port, request, connections=connections, seconds=SECONDS, pause_s=pause)
        used = cpu_seconds(router) - before
        per_request.append(used / figures.requests)
        per_event.append(used / max(1, figures.events))
        rates.append(figures.requests / SECONDS)
    line = f"{name:<30} {statistics.median(per_request) * 1e6:7.0f} us CPU per request"
    if request.find(b'"stream": true') >= 0:
        line += f", {statistics.median(per_event) * 1e6:5.0f} us per event"
    print(f"{line}; {statistics.median(rates):6.0f} requests/s", flush=True)


async def _added_first_byte(direct: int, routed: int, request: bytes) -> None:
    """Alternate between both, one connection each, at rest."""
    halves, nearly = [], []
    for _ in range(ROUNDS):
        without = await _at_rest(direct, request)
        with_router = await _at_rest(routed, request)
        halves.append(with_router.percentile(0.5) - without.percentile(0.5))
        nearly.append(with_router.percentile(0.99) - without.percentile(0.99))
    print(
        f"added time to first byte: p50 {statistics.median(halves) * 1e3:.2f} ms, "
        f"p99 {statistics.median(nearly) * 1e3:.2f} ms"
    )


async def _at_rest(port: int, request: bytes) -> Figures:
    return await load(port, request, connections=1, seconds=2, pause_s=0.005)
