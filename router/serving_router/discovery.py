"""Where the replicas are: a stream of whole sets, so that a missed change cannot last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Protocol
from urllib.parse import urlsplit

from serving_router.errors import InvalidReplicas
from serving_router.replica import Replica


class Discovery(Protocol):
    """A source of replica sets."""

    def watch(self) -> AsyncGenerator[tuple[Replica, ...], None]:
        """Yield the whole set at once, after each change and whenever it is known to be current.

        Ending means that it is final.
        """
        ...


def parse_replicas(text: str) -> tuple[Replica, ...]:
    """Read `--replicas URL,URL`.

    Raises:
        InvalidReplicas: a part is not `http://host:port`, or is named twice.
    """
    urls = [_parse_url(part.strip()) for part in text.split(",")]
    for url in urls:
        if urls.count(url) > 1:
            raise InvalidReplicas(f"--replicas: {url} is named twice")
    return tuple(Replica(url=url) for url in urls)


def _parse_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_root = parts.path in ("", "/") and not parts.query and not parts.fragment
        # Reading the port is what checks it.
        is_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_root = is_url = False
    if not is_url or not is_root or "@" in text:
        raise InvalidReplicas(f"--replicas: {text!r} is not of the form http://HOST:PORT")
    return f"{parts.scheme}://{parts.netloc}"


class StaticDiscovery:
    """A list that never changes."""

    def __init__(self, replicas: Iterable[Replica]) -> None:
        self._replicas = tuple(replicas)

    async def watch(self) -> AsyncGenerator[tuple[Replica, ...], None]:
        """Yield the list."""
        yield self._replicas


class LocalDiscovery:
    """A set that the process which starts the replicas changes; watched by one reader."""

    def __init__(self, replicas: Iterable[Replica] = ()) -> None:
        self._replicas = tuple(replicas)
        self._changed = asyncio.Event()

    def set(self, replicas: Iterable[Replica]) -> None:
        """Replace the set; call it in the event loop."""
        self._replicas = tuple(replicas)
        self._changed.set()

    async def watch(self) -> AsyncGenerator[tuple[Replica, ...], None]:
        """Yield the newest set; sets that were replaced unread are skipped."""
        while True:
            self._changed.clear()
            yield self._replicas
            await self._changed.wait()
