"""Wires the operator's parts and runs them until a signal comes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from typing import Final

import kopf

from serving_contract.kubernetes import API_VERSION
from serving_operator.access import Access
from serving_operator.api import ApiClient
from serving_operator.body import items
from serving_operator.cluster import Cluster
from serving_operator.errors import ApiError
from serving_operator.handlers import Events, kopf_settings, registry_of
from serving_operator.kinds import SERVING_DEPLOYMENT
from serving_operator.lease import Elector
from serving_operator.metrics import Metrics
from serving_operator.probes import probes
from serving_operator.reconciler import Reconciler
from serving_operator.settings import Settings
from serving_operator.store import Key, Store
from serving_operator.work_queue import WorkQueue
from serving_operator.workers import Workers

_log = logging.getLogger(__name__)

QUIET_S: Final = 1.0
"""Without an event for so long, the first lists are taken for complete. If they are not, reconciles
only read more than they need: nothing is made or deleted from memory alone."""
_CRD_POLL_S: Final = 2.0
_END_S: Final = 10.0
"""kopf may wait for its own watches for ever, once one of them has failed (seen in 1.45)."""
_MAX_NESTING: Final = 12_000
"""The API server takes JSON that is 10 000 levels deep, and a template may be so: the JSON reader
counts its levels as Python's recursion."""


class Operator:
    """One operator process."""

    def __init__(self, settings: Settings, access: Access) -> None:
        self._settings = settings
        self._elector = Elector(
            namespace=settings.lease_namespace,
            identity=settings.identity,
            exit_at_once=_exit_at_once,
        )
        self._queue: WorkQueue[Key] = WorkQueue()
        self._store = Store()
        self._access = access
        self._api = ApiClient(access, self._elector.gate)
        cluster = Cluster(self._api, self._store, settings.namespaces)
        reconciler = Reconciler(cluster, self._store, settings.defaults)
        self._metrics = Metrics(lambda: len(self._queue), lambda: self._elector.is_leader)
        self._workers = Workers(
            self._queue, reconciler, cluster, self._store, self._metrics, settings.resync_s
        )
        self._events = Events(self._store, self._queue, self._workers)
        self._stop = asyncio.Event()

    @property
    def is_alive(self) -> bool:
        """Whether reconciles come to an end."""
        return not self._workers.is_stuck

    @property
    def is_ready(self) -> bool:
        """Whether the first lists are in."""
        return self._events.is_warm

    def exposition(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return self._metrics.exposition()

    async def run(self) -> None:
        """Run until a signal comes; then give the lease up.

        Raises:
            OSError: the port is in use.
            RuntimeError: the watches ended.
        """
        sys.setrecursionlimit(_MAX_NESTING)
        settings = self._settings
        async with self._api, probes(self, host=settings.host, port=settings.port):
            await self._await_crd()
            leading = asyncio.create_task(self._lead())
            watching = asyncio.create_task(self._watch())
            stopping = asyncio.create_task(self._stop.wait())
            async with contextlib.AsyncExitStack() as stack:
                # The last first: nobody else may lead before our own work is over.
                stack.push_async_callback(_end, watching)
                stack.push_async_callback(self._elector.release, self._api)
                stack.push_async_callback(_end, leading)
                stack.callback(stopping.cancel)
                tasks = [leading, watching, stopping]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if leading.cancelled():
                    # kopf, when it fails, cancels whatever task was begun after it.
                    raise RuntimeError("the watches ended, for a reason that kopf has logged")

    async def _watch(self) -> None:
        namespaces = self._settings.namespaces
        await kopf.operator(
            registry=registry_of(self._events, self._access),
            settings=kopf_settings(),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
        )

    async def _lead(self) -> None:
        await self._warm_up()
        await self._elector.run(self._api, self._workers.lead)

    async def _warm_up(self) -> None:
        began_at = time.monotonic()
        while time.monotonic() - max(self._events.last_at, began_at) < QUIET_S:  # noqa: ASYNC110
            await asyncio.sleep(QUIET_S / 10)
        self._events.is_warm = True
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            # Taken from kopf, which would let us go on for another 5 s.
            loop.add_signal_handler(number, self._stop.set)
        _log.info("ready: %d ServingDeployments", len(self._store.present()))

    async def _await_crd(self) -> None:
        """Wait until the API server knows our kind, as kopf does not look twice."""
        while not await self._has_crd():
            _log.warning("the API server has no %s yet; apply manifests/crd", API_VERSION)
            await asyncio.sleep(_CRD_POLL_S)

    async def _has_crd(self) -> bool:
        try:
            found = await self._api.get(f"/apis/{API_VERSION}")
        except ApiError as error:
            _log.info("looking for %s: %s", API_VERSION, error)
            return False
        return any(
            one.get("name") == SERVING_DEPLOYMENT.plural for one in items(found, "resources")
        )


def _exit_at_once() -> None:
    """End without another word to the API server."""
    _log.error("the lease ran out before a write; another operator may lead")
    logging.shutdown()
    os._exit(1)


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task; the error of one that has ended is raised."""
    if not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_END_S)
    if task.done() and not task.cancelled():
        task.result()
