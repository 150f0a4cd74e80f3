"""What router and replica cost when nothing runs, and whether 30 000 load reports leak anything.

The bar is 1 % of a core for each process.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import aiohttp
from tests.bench.processes import children_of, cpu_seconds, free_port, process, rss_mib

from serving_cli import tiny_model

IDLE_S = 30.0
REPORTS = 30_000


def run() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        tiny_model.write(Path(folder))
        asyncio.run(_measure(folder))


async def _measure(model: str) -> None:
    port = free_port()
    command = ["-m", "serving_cli.entry", "serve", model, "--port", str(port)]
    async with process(command, port) as serve, aiohttp.ClientSession() as client:
        url = f"http://127.0.0.1:{port}"
        replica_url = await _ready_replica(client, url)
        [replica] = children_of(serve)
        [worker] = children_of(replica)
        parts = {"router and launcher": serve, "replica server": replica, "worker": worker}
        await _idle_cpu(parts)
        await _many_reports(client, replica_url, replica)


async def _ready_replica(client: aiohttp.ClientSession, url: str) -> str:
    while True:
        async with client.get(f"{url}/v1/load") as answer:
            [replica] = (await answer.json())["replicas"]
        if replica["state"] == "ready":
            return str(replica["url"])
        await asyncio.sleep(0.2)


async def _idle_cpu(parts: dict[str, int]) -> None:
    before = {name: cpu_seconds(pid) for name, pid in parts.items()}
    await asyncio.sleep(IDLE_S)
    for name, pid in parts.items():
        share = (cpu_seconds(pid) - before[name]) / IDLE_S
        print(f"{name:<20} idle CPU {share:6.2%} of a core, {rss_mib(pid):4.0f} MiB", flush=True)


async def _many_reports(client: aiohttp.ClientSession, url: str, replica: int) -> None:
    """Ask as fast as answers come; the first tenth warms up."""
    for count in range(REPORTS):
        if count == REPORTS // 10:
            before = rss_mib(replica)
        async with client.get(f"{url}/v1/load") as answer:
            await answer.read()
    grown = rss_mib(replica) - before
    print(f"{REPORTS} load reports: resident memory of the replica grew by {grown:.1f} MiB")
