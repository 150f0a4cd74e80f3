"""Wires the router's parts into one application and runs it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator
from typing import Final

from fastapi import FastAPI, Request, Response

from serving_http.answers import error_response
from serving_http.app import create_app as create_http_app
from serving_http.auth import ApiKeys, FixedApiKeys
from serving_http.serve import bind, serve
from serving_router.admission import Admission
from serving_router.affinity import Sessions
from serving_router.api_keys import MountedApiKeys
from serving_router.background import keep_running
from serving_router.changes import describe
from serving_router.client import ReplicaClient
from serving_router.dashboard import dashboard
from serving_router.discovery import Discovery
from serving_router.errors import Rejected, RouterError
from serving_router.estimates import Estimates
from serving_router.load_table import LoadTable
from serving_router.metrics import Metrics
from serving_router.models import ServedModels
from serving_router.openapi import add_request_schemas
from serving_router.proxy import Proxy, api_error
from serving_router.replica import Replica
from serving_router.reports import ReportReaders
from serving_router.routes import own_routes, proxied_routes
from serving_router.settings import RouterSettings
from serving_router.traffic import CountTraffic, Traffic

_log = logging.getLogger(__name__)

SWEEP_INTERVAL_S: Final = 1.0


class Router:
    """One router: its parts, its application, its background work.

    Attributes:
        app: the ASGI application; its lifespan runs the background work.
        table: what every replica owes.

    Raises:
        OSError: the folder of API keys cannot be read.
    """

    def __init__(self, settings: RouterSettings, discovery: Discovery) -> None:
        self.table = LoadTable()
        self._drain_timeout_s = settings.drain_timeout_s
        self._discovery = discovery
        self._client = ReplicaClient()
        self._readers = ReportReaders(self.table, self._client)
        self._models = ServedModels(settings.served_model_name)
        self._metrics = Metrics(self.table)
        self._traffic = Traffic(idle_timeout_s=settings.limits.idle_timeout_s)
        self._has_listed = False
        self._replicas: tuple[Replica, ...] = ()
        self._proxy = Proxy(
            self._client,
            table=self.table,
            admission=_admission(settings, self.table),
            estimates=Estimates(),
            metrics=self._metrics,
        )
        self.app = self._create_app(settings)

    def _create_app(self, settings: RouterSettings) -> FastAPI:
        app = create_http_app(
            title="ascend-serving router", lifespan=self._lifespan, api_keys=_api_keys(settings)
        )
        app.add_exception_handler(RouterError, self._on_router_error)
        app.add_middleware(CountTraffic, traffic=self._traffic, metrics=self._metrics)
        affinity = settings.session_affinity
        app.include_router(
            proxied_routes(self._proxy, self._models, affinity.header if affinity else None)
        )
        app.include_router(own_routes(self))
        app.include_router(dashboard())
        add_request_schemas(app)
        return app

    async def _on_router_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RouterError)
        if isinstance(error, Rejected):
            self._metrics.rejected.labels(error.code).inc()
        return error_response(api_error(error))

    @property
    def is_alive(self) -> bool:
        """Whether discovery has named the replicas once, be it none."""
        return self._has_listed

    @property
    def is_ready(self) -> bool:
        """Whether a request that came now could be answered."""
        return self.table.has_ready_replica and not self._traffic.is_draining

    def exposition(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return self._metrics.exposition()

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        async with self._client, asyncio.TaskGroup() as tasks:
            works = [
                tasks.create_task(keep_running("discovery", lambda: self._follow(tasks))),
                tasks.create_task(keep_running("sweeping", self._sweep)),
                tasks.create_task(keep_running("learning the model", self._learn_models)),
            ]
            yield
            for work in works:
                work.cancel()
            self._readers.follow((), tasks)

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        async with contextlib.aclosing(self._discovery.watch()) as sets:
            async for replicas in sets:
                self._take(replicas, tasks)
        # The set is final, and so always current.
        self._metrics.last_sync.set_function(time.time)

    def _take(self, replicas: tuple[Replica, ...], tasks: asyncio.TaskGroup) -> None:
        self._metrics.last_sync.set_to_current_time()
        if self._has_listed and replicas == self._replicas:
            return
        self.table.replace(replicas)
        self._readers.follow(replicas, tasks)
        _log.info("replicas: %s", describe(self._replicas, replicas) or "none")
        self._replicas = replicas
        self._has_listed = True

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self.table.sweep(SWEEP_INTERVAL_S)

    async def _learn_models(self) -> None:
        await self._models.learn(self.table, self._client)

    async def drain(self) -> None:
        """Finish what is there; after the drain timeout end it with the typed error."""
        self._traffic.is_draining = True
        try:
            async with asyncio.timeout(self._drain_timeout_s):
                await self._traffic.wait_over()
        except TimeoutError:
            _log.warning("streams are cut off after %g s of draining", self._drain_timeout_s)
        self._proxy.stop()


def create_app(settings: RouterSettings, discovery: Discovery) -> FastAPI:
    """Make a router's application.

    Raises:
        OSError: the folder of API keys cannot be read.
    """
    return Router(settings, discovery).app


async def run_router(
    settings: RouterSettings, discovery: Discovery, *, listener: socket.socket | None = None
) -> None:
    """Serve until a signal comes and the drain is over; cancelling it stops the router too.

    Args:
        settings: all of them; host and port do not count when a listener is given.
        discovery: where the replicas are.
        listener: a socket that listens already; it is closed at the end.

    Raises:
        OSError: the port is in use, or the folder of API keys cannot be read.
    """
    listener = listener or bind(settings.host, settings.port)
    with listener:
        router = Router(settings, discovery)
        await serve(
            router.app,
            sockets=[listener],
            limits=settings.limits,
            tls=settings.tls,
            on_stopping=router.drain,
        )


def _admission(settings: RouterSettings, table: LoadTable) -> Admission:
    affinity = settings.session_affinity
    return Admission(
        table,
        chosen_by=settings.policy,
        max_pending_tokens=settings.max_pending_tokens_per_replica,
        sessions=Sessions(ttl_s=affinity.ttl_seconds) if affinity else None,
    )


def _api_keys(settings: RouterSettings) -> ApiKeys | None:
    if settings.api_keys_dir is not None:
        return MountedApiKeys(settings.api_keys_dir, settings.api_keys)
    return FixedApiKeys(settings.api_keys) if settings.api_keys else None
