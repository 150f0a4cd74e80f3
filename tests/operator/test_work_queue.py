from __future__ import annotations

import asyncio

from serving_operator.work_queue import MAX_RETRY_S, WorkQueue


def highest(low: float, high: float) -> float:
    return high


async def test_key_waits_once_however_often_it_is_added() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


async def test_key_that_is_worked_on_comes_again_afterwards() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await queue.get() == "a"


async def test_reader_waits_for_a_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    reader = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await reader == "a"


async def test_earlier_of_two_times_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 3600)
    queue.add_after("a", 0)
    queue.add_after("a", 3600)
    assert await queue.get() == "a"


async def test_key_that_comes_at_once_needs_no_timer() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0.01)
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")
    await asyncio.sleep(0.05)
    assert len(queue) == 0


async def test_failures_double_the_delay_up_to_a_limit_and_are_forgotten() -> None:
    queue: WorkQueue[str] = WorkQueue(highest)
    delays = [queue.retry("a") for _ in range(10)]
    assert delays[:3] == [0.25, 0.5, 1.0]
    assert delays[-1] == MAX_RETRY_S
    queue.forget("a")
    assert queue.retry("a") == 0.25


async def test_key_that_failed_waits_for_its_time_though_it_is_added() -> None:
    queue: WorkQueue[str] = WorkQueue(highest)
    queue.retry("a")
    queue.add("a")
    assert len(queue) == 0
    queue.forget("a")
    queue.add("a")
    assert await queue.get() == "a"
