"""The loops that turn keys into reconciles while this process leads."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Final

from serving_operator.cluster import Cluster
from serving_operator.errors import ApiError, LeadershipLost
from serving_operator.metrics import Metrics
from serving_operator.reconciler import Reconciler
from serving_operator.store import Key, Store
from serving_operator.work_queue import WorkQueue

_log = logging.getLogger(__name__)

WORKERS: Final = 8
STUCK_AFTER_S: Final = 900.0
"""No request lasts for longer than 5 s, but scaling to 512 replicas is a thousand of them."""
_REFRESH_PAUSE_S: Final = 1.0
"""Relists come in bursts, one a kind."""


class Workers:
    """Works the queue off, and fills it anew when the watches may have missed something.

    Args:
        queue: keys to look at.
        reconciler: looks at one.
        cluster: lists everything.
        store: what is known.
        metrics: counts.
        resync_s: how often everything is listed though nothing seems to have been missed.
    """

    def __init__(
        self,
        queue: WorkQueue[Key],
        reconciler: Reconciler,
        cluster: Cluster,
        store: Store,
        metrics: Metrics,
        resync_s: float,
    ) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._cluster = cluster
        self._store = store
        self._metrics = metrics
        self._resync_s = resync_s
        self._began_at: dict[Key, float] = {}
        self._missed = asyncio.Event()
        self._failed_refreshes = 0

    def note_relist(self) -> None:
        """A watch began anew: what was deleted meanwhile was told to nobody."""
        self._missed.set()

    @property
    def is_stuck(self) -> bool:
        """Whether a reconcile runs for longer than any request may."""
        now = time.monotonic()
        return any(now - began_at > STUCK_AFTER_S for began_at in self._began_at.values())

    async def lead(self) -> None:
        """Look at everything once, then at whatever changes, until cancelled."""
        for key in self._store.present():
            self._queue.add(key)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WORKERS):
                tasks.create_task(self._work())
            tasks.create_task(self._resync())

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._look_at(key)
            finally:
                self._queue.done(key)

    async def _look_at(self, key: Key) -> None:
        self._began_at[key] = time.monotonic()
        where = {"namespace": key[0], "sdep": key[1]}
        try:
            with self._metrics.seconds.time():
                later = await self._reconciler.reconcile(key)
        except LeadershipLost:
            self._queue.add_after(key, _REFRESH_PAUSE_S)
        except ApiError as error:
            self._again("error", key, str(error), where)
        except Exception:  # noqa: BLE001 - a bug that one object shows must not stop the others
            _log.exception("reconcile failed", extra=where)
            self._again("bug", key, "see above", where)
        else:
            self._metrics.reconciles.labels("ok").inc()
            self._queue.forget(key)
            if later is not None:
                self._queue.add_after(key, later.total_seconds())
        finally:
            del self._began_at[key]

    def _again(self, result: str, key: Key, why: str, where: dict[str, str]) -> None:
        self._metrics.reconciles.labels(result).inc()
        delay_s = self._queue.retry(key)
        _log.warning("%s/%s: again in %.1f s: %s", *key, delay_s, why, extra=where)

    async def _resync(self) -> None:
        while True:
            wait_s = self._resync_s * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
            try:
                async with asyncio.timeout(wait_s):
                    await self._missed.wait()
                await asyncio.sleep(_REFRESH_PAUSE_S)
            except TimeoutError:
                pass
            self._missed.clear()
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            await self._cluster.refresh()
            self._failed_refreshes = 0
        except ApiError as error:
            self._failed_refreshes += 1
            pause_s = min(_REFRESH_PAUSE_S * 2**self._failed_refreshes, self._resync_s)
            _log.error("not everything could be listed, again in %.0f s: %s", pause_s, error)
            asyncio.get_running_loop().call_later(pause_s, self._missed.set)
        self._reconciler.forget_objections()
        for key in self._store.present():
            self._queue.add(key)
