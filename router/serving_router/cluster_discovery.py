"""Discovery in a cluster: EndpointSlices of the replicas' Service, listed once and then watched.

The API server may be away for as long as it likes: what was known last stays known, and the next
list replaces all of it, so that what vanished meanwhile is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from serving_router.endpoint_slice import EndpointSlice, parse_event
from serving_router.errors import DiscoveryFailed
from serving_router.known_slices import KnownSlices
from serving_router.outage import Outage
from serving_router.replica import Replica


class Slices(Protocol):
    """Tells the slices of one Service."""

    async def list(self) -> tuple[list[EndpointSlice], str]:
        """Return all of them, and the version at which they were so.

        Raises:
            DiscoveryFailed: the API server did not tell.
        """
        ...

    def watch(self, version: str) -> AbstractAsyncContextManager[AsyncIterable[bytes]]:
        """Open a watch that goes on after this version; yields its lines.

        Raises:
            DiscoveryFailed: it could not be opened, or broke.
        """
        ...


class ClusterDiscovery:
    """The replicas behind one Service."""

    def __init__(self, slices: Slices, outage: Outage | None = None) -> None:
        self._slices = slices
        self._outage = outage or Outage()

    async def watch(self) -> AsyncGenerator[tuple[Replica, ...], None]:
        """Yield the set at each moment at which it is known to be current; it never ends."""
        known = KnownSlices()
        while True:
            try:
                if known.version is None:
                    known.replace(*await self._slices.list())
                    self._outage.over()
                    yield known.replicas()
                assert known.version is not None
                async with self._slices.watch(known.version) as lines:
                    self._outage.watching()
                    async for line in lines:
                        known.apply(parse_event(line))
                        self._outage.heard()
                        yield known.replicas()
            except DiscoveryFailed as error:
                self._outage.failed(error)
                if error.needs_list:
                    known.forget_version()
            await asyncio.sleep(self._outage.pause_s())
