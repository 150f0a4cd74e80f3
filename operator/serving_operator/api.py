"""A small client of the Kubernetes API: requests with dicts in and out, and nothing dropped.

No retries here: whoever asked is asked again by the work queue, from a fresh look. Every write
passes a gate first, so that an operator that lost its lease writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Final, Self

import aiohttp
from yarl import URL

from serving_contract.kubernetes import OPERATOR
from serving_operator.access import Access
from serving_operator.body import Body, fields, items, text
from serving_operator.errors import Refused, Unavailable

REQUEST_TIMEOUT_S: Final = 5.0
"""Shorter than the time between the renew deadline and the end of the lease: a write that passed
the gate is over before another operator can lead."""
LIST_TIMEOUT_S: Final = 60.0
PAGE: Final = 100
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"


class ApiClient:
    """An async context manager around one connection pool.

    Args:
        access: where and as whom.
        gate: raises when no write may be made now.
    """

    def __init__(self, access: Access, gate: Callable[[], None]) -> None:
        self._access = access
        self._gate = gate
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._access.tls or True, limit=32)
        self._session = aiohttp.ClientSession(
            connector=connector, headers={"Accept": "application/json"}, trust_env=True
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str) -> Body:
        """Read one object, or a discovery document."""
        return await self._request("GET", path)

    async def list_pages(self, path: str, selector: str = "") -> AsyncIterator[Body]:
        """Yield the objects of a collection, fetched page by page."""
        query = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
        while True:
            page = await self._request("GET", path, query=query, timeout_s=LIST_TIMEOUT_S)
            for item in items(page, "items"):
                yield dict(item)
            token = text(page, "metadata", "continue")
            if not token:
                return
            query["continue"] = token

    async def create(self, path: str, body: Mapping[str, object]) -> Body:
        """Create an object."""
        self._gate()
        return await self._request("POST", path, body=body, query={"fieldManager": OPERATOR})

    async def dry_run(self, path: str, body: Mapping[str, object]) -> Body:
        """Ask whether an object could be created; unknown fields count as errors."""
        self._gate()
        query = {"fieldManager": OPERATOR, "dryRun": "All", "fieldValidation": "Strict"}
        return await self._request("POST", path, body=body, query=query)

    async def apply(self, path: str, body: Mapping[str, object]) -> Body:
        """Apply what we mean to one object (server-side apply, KEP-555)."""
        self._gate()
        query = {"fieldManager": OPERATOR, "force": "true"}
        return await self._request("PATCH", path, body=body, query=query, kind=_APPLY)

    async def merge(self, path: str, body: Mapping[str, object]) -> Body:
        """Merge into one object (RFC 7386)."""
        self._gate()
        query = {"fieldManager": OPERATOR}
        return await self._request("PATCH", path, body=body, query=query, kind=_MERGE)

    async def replace(self, path: str, body: Mapping[str, object]) -> Body:
        """Replace one object; the resourceVersion in it must still be current."""
        return await self._request("PUT", path, body=body)

    async def create_lease(self, path: str, body: Mapping[str, object]) -> Body:
        """Create the object that elects who may write: the only creation without the gate."""
        return await self._request("POST", path, body=body)

    async def delete(
        self, path: str, *, uid: str, resource_version: str, grace_s: int | None = None
    ) -> Body:
        """Delete the very object that was seen, as it was seen."""
        self._gate()
        options: Body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid, "resourceVersion": resource_version},
        }
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        return await self._request("DELETE", path, body=options)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str] | None = None,
        kind: str = "application/json",
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> Body:
        assert self._session is not None, "the client is used inside its context only"
        headers = {"Content-Type": kind} if body is not None else {}
        if authorization := self._access.authorization():
            headers["Authorization"] = authorization
        url = URL(self._access.server + path).with_query(query or {})
        try:
            async with self._session.request(
                method,
                url,
                headers=headers,
                data=None if body is None else json.dumps(body),
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as answer:
                return _checked(answer.status, await answer.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            words = str(error) or type(error).__name__
            raise Unavailable(f"{method} {path}: {words}") from error


def _checked(status: int, content: bytes) -> Body:
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if status >= 400:
        reason, message = text(body, "reason"), text(body, "message")
        raise Refused(
            status, reason or str(status), message or content[:200].decode(errors="replace")
        )
    if not isinstance(body, dict):
        raise Unavailable(f"the answer is no JSON object: {content[:80]!r}")
    return dict(fields(body))
