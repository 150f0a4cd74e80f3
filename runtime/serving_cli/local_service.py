"""Replica processes and the router of this machine, together."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence

from serving_cli.fleet import Fleet
from serving_cli.local_replica import HOST, LocalReplica, ReplicaOrder
from serving_http.serve import bind, running
from serving_router.app import create_app, run_router
from serving_router.discovery import LocalDiscovery
from serving_router.replica import Replica
from serving_router.settings import RouterSettings


class LocalReplicas:
    """A fleet of local replicas and what the router discovers of it."""

    def __init__(self, orders: Sequence[ReplicaOrder]) -> None:
        self._replicas = [LocalReplica(order) for order in orders]
        self.discovery = LocalDiscovery(self._discovered(frozenset()))
        self.fleet = Fleet(self._replicas, self._on_change)

    def _on_change(self, ready: frozenset[int]) -> None:
        self.discovery.set(self._discovered(ready))

    def _discovered(self, ready: frozenset[int]) -> list[Replica]:
        return [
            Replica(url=replica.url, ready=replica.index in ready, serving=replica.index in ready)
            for replica in self._replicas
        ]


async def serve(
    orders: Sequence[ReplicaOrder], settings: RouterSettings, listener: socket.socket
) -> None:
    """Run replicas and router until a signal came and the router was drained.

    Raises:
        CommandFailed: in a group; a replica failed to start.
    """
    local = LocalReplicas(orders)
    drained = False
    try:
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(local.fleet.keep())
            await run_router(settings, local.discovery, listener=listener)
            drained = True
            keeping.cancel()
    finally:
        await (local.fleet.stop() if drained else local.fleet.kill())


@contextlib.asynccontextmanager
async def local_service(
    orders: Sequence[ReplicaOrder], *, max_pending_tokens_per_replica: int
) -> AsyncIterator[str]:
    """Yield the router's address once every replica is ready; all of it ends with the context.

    Raises:
        CommandFailed: in a group; a replica failed to start.
    """
    local = LocalReplicas(orders)
    settings = RouterSettings(
        served_model_name=orders[0].config.served_name,
        max_pending_tokens_per_replica=max_pending_tokens_per_replica,
    )
    listener = bind(HOST, 0)  # closed by the server
    url = f"http://{HOST}:{listener.getsockname()[1]}"
    app = create_app(settings, local.discovery)
    try:
        await local.fleet.start()
        async with (
            running(app, sockets=[listener], limits=settings.limits, tls=None),
            asyncio.TaskGroup() as group,
        ):
            keeping = group.create_task(local.fleet.supervise())
            yield url
            keeping.cancel()
    finally:
        await local.fleet.kill()
