"""Sends the requests of a batch through the router, as many at a time as the replicas can run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import aiohttp
from pydantic import JsonValue

from serving_cli.batch_journal import BatchRequest, BatchResult

MAX_FAILURES: Final = 3
"""A request that has ended this many replicas is not tried on the next."""
BUSY: Final = frozenset({429, 503})
MAX_WAITS: Final = 600
WAIT_S: Final = 1.0


async def send_all(
    requests: Iterable[BatchRequest],
    *,
    url: str,
    model: str,
    concurrency: int,
    on_result: Callable[[BatchResult], None],
) -> None:
    """Send every request and hand over its result, in the order in which answers come."""
    todo = iter(requests)
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with (
        aiohttp.ClientSession(url, timeout=timeout, connector=connector) as client,
        asyncio.TaskGroup() as workers,
    ):
        for _ in range(concurrency):
            workers.create_task(_work(todo, client, model, on_result))


async def _work(
    todo: Iterator[BatchRequest],
    client: aiohttp.ClientSession,
    model: str,
    on_result: Callable[[BatchResult], None],
) -> None:
    for request in todo:
        on_result(await _answer(request, client, model))


async def _answer(request: BatchRequest, client: aiohttp.ClientSession, model: str) -> BatchResult:
    failures, waits = 0, 0
    while True:
        status, answer = await _post(request, client, model)
        failures += status == 502
        waits += status in BUSY
        is_final = status != 502 and status not in BUSY
        if is_final or failures == MAX_FAILURES or waits == MAX_WAITS:
            return _result(request, status, answer)
        await asyncio.sleep(WAIT_S)


async def _post(
    request: BatchRequest, client: aiohttp.ClientSession, model: str
) -> tuple[int, dict[str, JsonValue]]:
    body = {"model": model, **request.body}
    async with client.post(request.path, json=body) as response:
        answer: dict[str, JsonValue] = await response.json()
        return response.status, answer


def _result(request: BatchRequest, status: int, answer: dict[str, JsonValue]) -> BatchResult:
    if status == 200:
        return BatchResult(index=request.index, digest=request.digest, response=answer)
    error = answer["error"]
    assert isinstance(error, dict)
    return BatchResult(index=request.index, digest=request.digest, error=error)
