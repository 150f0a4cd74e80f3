"""The two requests of discovery to the API server: list and watch the slices of one Service.

Each has a connection of its own, so that a replaced token or authority counts from the next one on.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from http import HTTPStatus
from typing import Final

import aiohttp

from serving_router.api_access import Access, AccessSource
from serving_router.backoff import Uniform
from serving_router.endpoint_slice import EndpointSlice, SliceList, parse_list
from serving_router.errors import (
    DiscoveryFailed,
    Forbidden,
    HistoryGone,
    InvalidAccess,
    Unauthorized,
    WatchSilent,
)

PAGE_SIZE: Final = 500
LIST_TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 5.0
WATCH_SILENCE_S: Final = 90.0
"""Bookmarks come a minute apart, but only where slices change at all (seen on kube-apiserver 1.34:
the first after two minutes in an idle cluster). A watch that brings neither is replaced by a list:
its peer may be gone, or restored to an older state, whose changes it would never bring."""
WATCH_LASTS_S: Final = 240, 300
"""Drawn anew for each watch, so that many routers do not come back together."""
MAX_RETRY_AFTER_S: Final = 120
_MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
"""etcd holds no object above 1.5 MiB."""
_MAX_REFUSAL_BYTES: Final = 64 * 1024
_REFUSALS: Final[dict[int, type[DiscoveryFailed]]] = {
    HTTPStatus.UNAUTHORIZED: Unauthorized,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.GONE: HistoryGone,
}


class SlicesApi:
    """Asks for the EndpointSlices of one Service.

    Args:
        access: the way to the API server.
        namespace: where the Service is.
        service: its name.
        silence_s: how long a watch may bring nothing.
        uniform: draws how long a watch lasts.
    """

    def __init__(
        self,
        access: AccessSource,
        *,
        namespace: str,
        service: str,
        silence_s: float = WATCH_SILENCE_S,
        uniform: Uniform = random.uniform,
    ) -> None:
        self._access = access
        self._path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        self._selection = {"labelSelector": f"kubernetes.io/service-name={service}"}
        self._silence_s = silence_s
        self._uniform = uniform

    async def list(self) -> tuple[list[EndpointSlice], str]:
        """Return all slices and the version at which they were so.

        Raises:
            DiscoveryFailed: the API server did not tell.
        """
        slices: list[EndpointSlice] = []
        next_page = ""
        while True:
            page = await self._list_page(next_page)
            slices += page.items or ()
            next_page = page.metadata.next_page
            if not next_page:
                return slices, page.metadata.resource_version

    async def _list_page(self, next_page: str) -> SliceList:
        wanted = {"limit": str(PAGE_SIZE)} | ({"continue": next_page} if next_page else {})
        timeout = aiohttp.ClientTimeout(total=LIST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        async with self._get(wanted, timeout) as response:
            return parse_list(await response.read())

    @contextlib.asynccontextmanager
    async def watch(self, version: str) -> AsyncIterator[AsyncIterable[bytes]]:
        """Open a watch that goes on after this version; yields its lines.

        Raises:
            WatchSilent: not even a bookmark came for long.
            DiscoveryFailed: it could not be opened, or broke.
        """
        wanted = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(self._uniform(*WATCH_LASTS_S))),
        }
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=self._silence_s
        )
        async with self._get(wanted, timeout) as response:
            try:
                yield response.content
            except aiohttp.SocketTimeoutError as error:
                message = f"the watch brought nothing for {self._silence_s:g} s"
                raise WatchSilent(message) from error

    @contextlib.asynccontextmanager
    async def _get(
        self, wanted: Mapping[str, str], limits: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            access = self._access.read()
            async with (
                _session(access, limits) as session,
                session.get(
                    access.server + self._path,
                    params={**self._selection, **wanted},
                    allow_redirects=False,
                    read_bufsize=_MAX_EVENT_BYTES,
                ) as response,
            ):
                if response.status != HTTPStatus.OK:
                    raise await _refusal(response)
                try:
                    yield response
                finally:
                    _abort(response)
        except InvalidAccess as error:
            raise DiscoveryFailed(str(error)) from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise DiscoveryFailed(f"the API server cannot be asked: {_reason(error)}") from error


def _session(access: Access, limits: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
    headers = {"Accept": "application/json"}
    if access.token is not None:
        headers["Authorization"] = f"Bearer {access.token}"
    connector = aiohttp.TCPConnector(ssl=access.tls or True)
    return aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        timeout=limits,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def _reason(error: Exception) -> str:
    """Say the same of the same failure each time; aiohttp names the query and an object's address.

    The log shows a message when it differs from the last one.
    """
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return str(error.certificate_error)
        case aiohttp.ClientConnectorError():
            return error.os_error.strerror or str(error.os_error)
        case aiohttp.ConnectionTimeoutError():
            return f"no connection within {CONNECT_TIMEOUT_S:g} s"
        case aiohttp.ClientPayloadError():
            return "the connection broke"
        case _:
            return str(error) or type(error).__name__


def _abort(response: aiohttp.ClientResponse) -> None:
    """Cut the connection if the answer has not ended: a dead peer never joins in closing TLS."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()


async def _refusal(response: aiohttp.ClientResponse) -> DiscoveryFailed:
    message = f"the API server answered {response.status}: {await _message(response)}"
    if response.status == HTTPStatus.FORBIDDEN:
        message += "; the router's Role needs get, list and watch on endpointslices"
    kind = _REFUSALS.get(response.status, DiscoveryFailed)
    return kind(message, retry_after_s=_seconds(response.headers.get("Retry-After", "")))


async def _message(response: aiohttp.ClientResponse) -> str:
    text = (await response.content.read(_MAX_REFUSAL_BYTES)).decode(errors="replace")
    try:
        answer = json.loads(text)
    except ValueError:
        return text.strip().partition("\n")[0]
    match answer:
        case {"message": str(message)}:
            return message
        case _:
            return response.reason or ""


def _seconds(retry_after: str) -> int | None:
    is_number = retry_after.isascii() and retry_after.isdecimal()
    return min(int(retry_after), MAX_RETRY_AFTER_S) if is_number else None
