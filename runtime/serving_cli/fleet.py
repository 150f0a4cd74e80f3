"""The replicas of `serve`: started together, kept alive, stopped together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from serving_cli.backoff import Backoff
from serving_cli.errors import CommandFailed
from serving_cli.local_replica import LocalReplica

OnChange = Callable[[frozenset[int]], None]
"""Told the indexes of the replicas that are ready, at each change."""

_log = logging.getLogger(__name__)


class Fleet:
    """All replicas of one model on this machine.

    Args:
        replicas: in order of their index; the fleet owns them.
        on_change: told which are ready.
    """

    def __init__(self, replicas: Sequence[LocalReplica], on_change: OnChange) -> None:
        self._replicas = replicas
        self._on_change = on_change
        self._ready: set[int] = set()

    async def start(self) -> None:
        """Start all in parallel and wait until each is ready.

        Raises:
            CommandFailed: one failed; the first failure's cause. Call `stop` then, too.
        """
        starts = [asyncio.create_task(self._bring_up(replica)) for replica in self._replicas]
        try:
            for start in asyncio.as_completed(starts):
                await start
        finally:
            for task in starts:
                task.cancel()
            await asyncio.wait(starts)

    async def keep(self) -> None:
        """Start all, then restart those that die, until cancelled; call `stop` or `kill` then.

        Raises:
            CommandFailed: one failed to start.
        """
        await self.start()
        _log.info("all %d replicas are ready", len(self._replicas))
        await self.supervise()

    async def supervise(self) -> None:
        """Restart replicas that die, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for replica in self._replicas:
                group.create_task(self._keep_alive(replica))

    async def stop(self) -> None:
        """Let all drain at the same time, then end them."""
        await asyncio.gather(*(replica.stop() for replica in self._replicas))
        self._close()

    async def kill(self) -> None:
        """End all at once."""
        await asyncio.gather(*(replica.kill() for replica in self._replicas))
        self._close()

    def _close(self) -> None:
        for replica in self._replicas:
            replica.close()

    async def _bring_up(self, replica: LocalReplica) -> None:
        began_at = time.monotonic()
        await replica.start()
        await replica.wait_ready()
        seconds = time.monotonic() - began_at
        _log.info("replica %d is ready at %s after %.1f s", replica.index, replica.url, seconds)
        self._set_ready(replica, True)

    async def _keep_alive(self, replica: LocalReplica) -> None:
        backoff = Backoff()
        ready_at = time.monotonic()
        while True:
            cause = await replica.wait_ended()
            self._set_ready(replica, False)
            delay = backoff.next_delay_s(was_ready_for_s=time.monotonic() - ready_at)
            _log.error("replica %d died: %s; restart in %.0f s", replica.index, cause, delay)
            await replica.kill()
            await asyncio.sleep(delay)
            # A failure ends the process: the next round says why and waits longer.
            with contextlib.suppress(CommandFailed, OSError):
                await self._bring_up(replica)
            ready_at = time.monotonic()

    def _set_ready(self, replica: LocalReplica, is_ready: bool) -> None:
        if is_ready:
            self._ready.add(replica.index)
        else:
            self._ready.discard(replica.index)
        self._on_change(frozenset(self._ready))
