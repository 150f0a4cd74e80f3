"""The life of a replica process: start, drain, a killed worker, a port in use."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from serving_http.serve import bind
from serving_runtime.config import EngineConfig
from serving_runtime.errors import EngineStopped, InvalidModel, Refused
from serving_runtime.server import ServerSettings, run_replica
from serving_runtime.server.replica import Replica
from serving_runtime.server.run import serve_replica

ENDLESS = {
    "model": "tiny",
    "prompt": "hello",
    "max_tokens": 500,
    "ignore_eos": True,
    "stream": True,
}


def open_stream(url: str, **fields: Any) -> Any:
    body = json.dumps(ENDLESS | fields).encode()
    request = urllib.request.Request(
        f"{url}/v1/completions", body, {"content-type": "application/json"}
    )
    return urllib.request.urlopen(request, timeout=60)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def test_a_drained_replica_finishes_its_streams_and_exits_with_0(start_replica: Any) -> None:
    with start_replica(drain_timeout_s=60) as replica:
        assert replica.get("/health")[0] == 200, "alive while the model loads"
        assert replica.get("/ready")[0] == 503
        replica.wait_ready()
        stream = open_stream(replica.url)
        watch = urllib.request.urlopen(f"{replica.url}/v1/load/watch", timeout=60)
        stream.readline()
        replica.process.send_signal(signal.SIGTERM)
        replica.wait_until(lambda: replica.get("/ready")[0] == 503)
        with pytest.raises(urllib.error.HTTPError) as refusal:
            open_stream(replica.url)
        assert refusal.value.code == 503
        assert json.load(refusal.value)["error"]["code"] == "no_replica_ready"
        assert refusal.value.headers["retry-after"]
        assert stream.read().decode().endswith("data: [DONE]\n\n")
        reports = [json.loads(line) for line in watch.read().decode().splitlines()]
        assert reports[-1]["draining"]
        assert reports[-1]["running"] == 0
        assert [report["seq"] for report in reports] == list(range(len(reports)))
        assert replica.process.wait(60) == 0


def test_a_signal_while_the_model_loads_leaves_no_process(start_replica: Any) -> None:
    with start_replica() as replica:
        replica.wait_until(lambda: bool(children(replica.process.pid)))
        replica.wait_until(lambda: replica.get("/health")[0] == 200)
        (worker,) = children(replica.process.pid)
        replica.process.send_signal(signal.SIGTERM)
        assert replica.process.wait(60) == 0
        assert not Path(f"/proc/{worker}").exists()


async def test_a_port_in_use_is_refused_before_anything_starts(tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = EngineConfig(model=tiny_model, served_name="tiny")
        with pytest.raises(Refused, match=f"--port {port}: .*in use"):
            await run_replica(config, ServerSettings(port=port))


async def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    config = EngineConfig(model=tmp_path / "none", served_name="tiny")
    with pytest.raises(InvalidModel, match="none"):
        await run_replica(config, ServerSettings(port=0))


@asynccontextmanager
async def served(
    replica: Replica, *, drain_timeout_s: float
) -> AsyncIterator[tuple[str, asyncio.Task[None]]]:
    """Serve in this process, whose signals the server owns meanwhile."""
    listener = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    settings = ServerSettings(drain_timeout_s=drain_timeout_s)
    before = asyncio.all_tasks()
    serving = asyncio.create_task(serve_replica(replica, listener, settings))
    try:
        yield url, serving
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        listener.close()
    assert asyncio.all_tasks() == before, "a task is left"


async def test_streams_left_at_the_timeout_end_with_the_typed_error(
    echo_replica: Any, load_until: Any
) -> None:
    replica, executor = echo_replica()
    async with (
        served(replica, drain_timeout_s=0) as (url, serving),
        aiohttp.ClientSession() as session,
    ):
        await load_until(replica, lambda report: report.kv_blocks_total > 0)
        body = ENDLESS | {"model": "echo", "max_tokens": 300}
        async with session.post(f"{url}/v1/completions", json=body) as answer:
            await answer.content.readline()
            executor.may_step.clear()
            os.kill(os.getpid(), signal.SIGTERM)
            text = (await answer.content.read()).decode()
        assert '"code": "replica_failed"' in text
        assert "[DONE]" not in text
        await serving


async def test_a_worker_that_dies_ends_its_streams_and_the_server(
    echo_replica: Any, load_until: Any
) -> None:
    replica, executor = echo_replica()
    async with (
        served(replica, drain_timeout_s=9) as (url, serving),
        aiohttp.ClientSession() as session,
    ):
        await load_until(replica, lambda report: report.kv_blocks_total > 0)
        body = ENDLESS | {"model": "echo"}
        async with session.post(f"{url}/v1/completions", json=body) as answer:
            await answer.content.readline()
            executor.failure = "the worker was killed by SIGKILL"
            text = (await answer.content.read()).decode()
        assert "SIGKILL" in text
        assert "[DONE]" not in text
        with pytest.raises(EngineStopped, match="SIGKILL"):
            await serving


async def test_a_worker_that_dies_idle_ends_the_server(echo_replica: Any, load_until: Any) -> None:
    replica, executor = echo_replica()
    async with served(replica, drain_timeout_s=9) as (_, serving):
        await load_until(replica, lambda report: report.kv_blocks_total > 0)
        executor.failure = "the worker was killed by SIGKILL"
        with pytest.raises(EngineStopped, match="SIGKILL"):
            await serving


async def test_a_model_that_cannot_be_loaded_ends_the_server(echo_replica: Any) -> None:
    replica, executor = echo_replica()
    executor.may_start.clear()
    async with (
        served(replica, drain_timeout_s=9) as (url, serving),
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"{url}/health") as health:
            assert health.status == 200
        executor.failure = "no such architecture"
        executor.may_start.set()
        with pytest.raises(Refused, match="architecture"):
            await serving
