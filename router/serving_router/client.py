"""The HTTP client towards replicas: the only module that makes connections.

Answers are taken as they come: never decompressed, never redirected, without a total timeout.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

import aiohttp
import orjson
from yarl import URL

from serving_router.errors import ReplicaFailed, ReplicaUnreachable
from serving_router.replica import Replica

CONNECT_TIMEOUT_S: Final = 5.0
WATCH_SILENCE_S: Final = 5.0
"""A watch stream brings a line a second; one that is silent for this long is opened anew."""
LIST_MODELS_TIMEOUT_S: Final = 5.0
_KEEP_ALIVE_S: Final = 30.0
"""Shorter than a replica keeps an idle connection, so that it is never the one to close."""
_MAX_REPORT_BYTES: Final = 4 * 1024 * 1024
_NO_REPORTS = (404, 405, 501)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One request as it goes to a replica; `target` is the path and query as the client sent it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def with_headers(self, *headers: tuple[str, str]) -> Self:
        """Return a copy with more headers."""
        return replace(self, headers=(*self.headers, *headers))


class ReplicaClient:
    """An async context manager around one connection pool."""

    def __init__(self) -> None:
        self._open_session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=_KEEP_ALIVE_S, socket_factory=_watchful_socket
        )
        self._open_session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S),
            skip_auto_headers=("accept", "accept-encoding", "user-agent", "content-type"),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        assert self._open_session is not None, "the client is used inside its context only"
        return self._open_session

    async def send(self, replica: Replica, outgoing: Outgoing) -> aiohttp.ClientResponse:
        """Send a request and return the answer once its head is there; the caller closes it.

        Raises:
            ReplicaUnreachable: no connection could be made.
            ReplicaFailed: the connection broke before an answer began.
        """
        url = URL(replica.url + outgoing.target, encoded=True)
        try:
            return await self._session.request(
                outgoing.method,
                url,
                headers=outgoing.headers,
                data=outgoing.body,
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ReplicaUnreachable(f"replica {replica.name} cannot be reached") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ReplicaFailed(f"replica {replica.name} closed the connection") from error

    @contextlib.asynccontextmanager
    async def watch(self, replica: Replica) -> AsyncIterator[AsyncIterable[bytes] | None]:
        """Open the replica's load stream: lines, or None if it does not report.

        Raises:
            ReplicaUnreachable: no connection could be made, or it answered anything but 200 or
                404, as a replica does that is still loading.
            ReplicaFailed: it broke off, now or while lines are read, or fell silent.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, connect=CONNECT_TIMEOUT_S, sock_read=WATCH_SILENCE_S
        )
        opening = self._session.get(
            replica.url + "/v1/load/watch",
            timeout=timeout,
            read_bufsize=_MAX_REPORT_BYTES,
        )
        try:
            async with opening as response:
                if response.status in _NO_REPORTS:
                    yield None
                    return
                if response.status != 200:
                    raise ReplicaUnreachable(f"GET /v1/load/watch answered {response.status}")
                yield response.content
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ReplicaUnreachable(f"replica {replica.name} cannot be reached") from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ReplicaFailed(f"{type(error).__name__}: {error}") from error

    async def model_names(self, replica: Replica) -> frozenset[str]:
        """Return the names that a replica serves.

        Raises:
            ReplicaFailed: it did not answer with an OpenAI list of models.
        """
        timeout = aiohttp.ClientTimeout(total=LIST_MODELS_TIMEOUT_S)
        listing = self._session.get(replica.url + "/v1/models", timeout=timeout)
        try:
            async with listing as response:
                response.raise_for_status()
                return _model_names(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ReplicaFailed(f"GET /v1/models: {type(error).__name__}: {error}") from error


def _model_names(body: bytes) -> frozenset[str]:
    match orjson.loads(body):
        case {"data": [*models]}:
            return frozenset(_name_of(model) for model in models)
        case _:
            raise ValueError("not a list of models")


def _name_of(model: object) -> str:
    match model:
        case {"id": str(name)}:
            return name
        case _:
            raise ValueError("a model without an id")


def _watchful_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Make a socket whose kernel notices within 30 s that the other host is gone."""
    family, kind, protocol, _, _ = address
    connection = socket.socket(family, kind, protocol)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    return connection
