"""What the replica says of its load, and to whom: whole reports and watch streams.

The counts are measured when a report is made; only reservation ids are kept here. Every stream
has its own list of ids that it has not told yet, so lines can be merged and none is ever lost.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Final

from serving_contract.load import (
    FINISHED_KEPT_S,
    MAX_PUSH_INTERVAL_S,
    MIN_PUSH_INTERVAL_S,
    LoadReport,
)

MAX_UNTOLD_IDS: Final = 100_000
"""A stream whose reader leaves more than this untold is ended; its reader has to begin anew."""
RATE_WINDOW_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The counts of one moment. `running` and `waiting` count sequences."""

    pending_prompt_tokens: int = 0
    pending_output_tokens: int = 0
    running: int = 0
    waiting: int = 0
    kv_blocks_used: int = 0
    kv_blocks_total: int = 0
    tokens_per_second: float = 0.0
    draining: bool = False


@dataclass(slots=True)
class RecentRate:
    """Events per second, with weights that fall by 1/e in `RATE_WINDOW_S`."""

    _weight: float = 0.0
    _updated: float = -math.inf

    def add(self, events: int, now: float) -> None:
        """Count events that happened now."""
        self._weight = self._faded(now) + events
        self._updated = now

    def value(self, now: float) -> float:
        """Return the rate; it fades to 0 when nothing happens."""
        return self._faded(now) / RATE_WINDOW_S

    def _faded(self, now: float) -> float:
        return self._weight * math.exp((self._updated - now) / RATE_WINDOW_S)


@dataclass(slots=True, eq=False)
class _Watcher:
    accepted: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_too_slow(self) -> bool:
        return len(self.accepted) + len(self.finished) > MAX_UNTOLD_IDS

    def take(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return what was not told yet, accepted and finished, and forget it."""
        told = tuple(self.accepted), tuple(self.finished)
        self.accepted.clear()
        self.finished.clear()
        self.changed.clear()
        return told


class LoadBoard:
    """The reservations that this replica has accepted, and those who want to know.

    Args:
        epoch: changes whenever the process restarts.
        measure: counts the load now.
        clock: monotonic seconds.
    """

    def __init__(
        self, *, epoch: str, measure: Callable[[], Load], clock: Callable[[], float]
    ) -> None:
        self._epoch = epoch
        self._measure = measure
        self._clock = clock
        self._unfinished: Counter[str] = Counter()
        self._finished: deque[tuple[float, str]] = deque()
        self._watchers: set[_Watcher] = set()
        self._is_closed = False

    def accept(self, reservation: str) -> None:
        """Note that a reservation's request is counted by the engine from now on."""
        self._unfinished[reservation] += 1
        for watcher in self._watchers:
            watcher.accepted.append(reservation)
        self.changed()

    def finish(self, reservation: str) -> None:
        """Note that nothing of a reservation's request is left in the engine."""
        self._unfinished[reservation] -= 1
        if self._unfinished[reservation] <= 0:
            del self._unfinished[reservation]
        self._forget_old()
        self._finished.append((self._clock(), reservation))
        for watcher in self._watchers:
            watcher.finished.append(reservation)
        self.changed()

    def changed(self) -> None:
        """Tell the watchers that the load is another one."""
        for watcher in self._watchers:
            watcher.changed.set()

    def close(self) -> None:
        """End every stream after a last report."""
        self._is_closed = True
        self.changed()

    def whole(self) -> LoadReport:
        """Return a report that stands by itself."""
        self._forget_old()
        finished = tuple(reservation for _, reservation in self._finished)
        return self._report(0, tuple(self._unfinished), finished)

    async def watch(self) -> AsyncGenerator[LoadReport, None]:
        """Yield a whole report, then one whenever the load changes, until the board is closed."""
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            is_last = self._is_closed
            yield self.whole()
            seq = 0
            while not is_last and not watcher.is_too_slow:
                await self._wait_for_change(watcher)
                is_last = self._is_closed
                seq += 1
                yield self._report(seq, *watcher.take())
        finally:
            self._watchers.discard(watcher)

    async def _wait_for_change(self, watcher: _Watcher) -> None:
        """Wait at least the shortest and at most the longest time between two reports."""
        if self._is_closed:
            return
        await asyncio.sleep(MIN_PUSH_INTERVAL_S)
        try:
            async with asyncio.timeout(MAX_PUSH_INTERVAL_S - MIN_PUSH_INTERVAL_S):
                await watcher.changed.wait()
        except TimeoutError:
            return

    def _forget_old(self) -> None:
        horizon = self._clock() - FINISHED_KEPT_S
        while self._finished and self._finished[0][0] < horizon:
            self._finished.popleft()

    def _report(self, seq: int, accepted: tuple[str, ...], finished: tuple[str, ...]) -> LoadReport:
        load = self._measure()
        return LoadReport(
            epoch=self._epoch,
            seq=seq,
            pending_prompt_tokens=load.pending_prompt_tokens,
            pending_output_tokens=load.pending_output_tokens,
            running=load.running,
            waiting=load.waiting,
            kv_blocks_used=load.kv_blocks_used,
            kv_blocks_total=load.kv_blocks_total,
            tokens_per_second=round(load.tokens_per_second, 3),
            draining=load.draining,
            accepted=accepted,
            finished=finished,
        )
