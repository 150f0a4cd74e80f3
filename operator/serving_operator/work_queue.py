"""A queue of keys: each at most once, never at two workers, back later when it failed."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

FIRST_RETRY_S: Final = 0.25
MAX_RETRY_S: Final = 60.0

K = TypeVar("K")


class WorkQueue(Generic[K]):
    """First in, first out; a key that is added while it is worked on comes again afterwards."""

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self._waiting: OrderedDict[K, None] = OrderedDict()
        self._active: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._arrival = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Enqueue a key now; one that failed waits for its time all the same."""
        if key in self._failures and key in self._timers:
            return
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._active:
            self._again.add(key)
        else:
            self._waiting[key] = None
            self._arrival.set()

    def add_after(self, key: K, delay_s: float) -> None:
        """Enqueue a key later; the earlier of two times counts."""
        loop = asyncio.get_running_loop()
        due_at = loop.time() + max(0.0, delay_s)
        before = self._timers.get(key)
        if before is not None and before.when() <= due_at:
            return
        if before is not None:
            before.cancel()
        self._timers[key] = loop.call_at(due_at, self._due, key)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def retry(self, key: K) -> float:
        """Enqueue a key that failed, later each time; returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        longest: float = min(FIRST_RETRY_S * 2**failures, MAX_RETRY_S)
        delay_s = self._uniform(longest / 2, longest)
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: K) -> None:
        """Forget a key's failures, so that it need not wait."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Wait for a key and take it; call `done` afterwards."""
        while not self._waiting:
            self._arrival.clear()
            await self._arrival.wait()
        key, _ = self._waiting.popitem(last=False)
        self._active.add(key)
        return key

    def done(self, key: K) -> None:
        """Give a key back."""
        self._active.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
