"""The kopf shell: watches, and tells the store and the queue. No decision is made here.

After a 410 kopf lists anew without telling what is gone, or anything at all if the list is empty
(read in 1.45). So it works through a session of ours: a LIST of kopf's after start-up means that
something may have been missed, and everything is listed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import aiohttp
import kopf

from serving_operator.access import Access
from serving_operator.body import text
from serving_operator.cluster import selector_of
from serving_operator.kinds import SERVING_DEPLOYMENT, WATCHED, Kind
from serving_operator.store import Key, Store
from serving_operator.work_queue import WorkQueue
from serving_operator.workers import Workers

_log = logging.getLogger(__name__)

_BACKOFFS_S: Final = (1.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0)
_LAST_BACKOFF_S: Final = 20.0
_PAGE: Final = 50
"""Objects in one page of a list: nine kinds are listed at once, and that is the peak of memory."""
_UNAUTHORIZED: Final = 401
_IDLE_S: Final = 0.5
"""kopf has a task for each object that was heard of lately; ours have nothing to wait for."""


class EndlessBackoffs:
    """Pauses between tries of a request, without end: an outage is no reason to exit."""

    def __iter__(self) -> Iterator[float]:
        yield from _BACKOFFS_S
        while True:
            yield _LAST_BACKOFF_S


class NothingRemembered(kopf.DiffBaseStorage):
    """Keeps kopf from copying each object that it hears of, to compare it with what it was before.

    Nobody here asks for differences, and its copy gives up on a template that is nested deeply.
    """

    def build(self, **_: object) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: object) -> None:
        return None

    def store(self, **_: object) -> None:
        """Store nothing."""


class Events:
    """Takes watch events in.

    Args:
        store: what is known.
        queue: gets the key of each ServingDeployment that an event is about.
        workers: learn of relists once `is_warm`.
    """

    def __init__(self, store: Store, queue: WorkQueue[Key], workers: Workers) -> None:
        self._store = store
        self._queue = queue
        self._workers = workers
        self.is_warm = False
        self.last_at = time.monotonic()

    def take(self, kind: Kind, type_: str | None, body: Mapping[str, object]) -> None:
        """Take one event in."""
        self.last_at = time.monotonic()
        key = self._store.put(kind.name, body)
        if type_ == "DELETED":
            metadata = ("namespace", "name", "uid")
            self._store.drop(kind.name, *(text(body, "metadata", field) for field in metadata))
        if key is None:
            return
        if kind is SERVING_DEPLOYMENT:
            # What failed may be mended by it.
            self._queue.forget(key)
        self._queue.add(key)

    def note_list(self) -> None:
        """A list was begun."""
        if self.is_warm:
            self._workers.note_relist()


def session_of(access: Access, note_list: Callable[[], None]) -> aiohttp.ClientSession:
    """Return the session that kopf works through.

    A 401 looks like a broken connection to it, and is tried again with the token as it is then:
    kopf would close the session under its own watches, and end if it got the same token again;
    but an API server that is just starting may refuse anybody.
    """

    async def authorized(
        request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if authorization := access.authorization():
            request.headers["Authorization"] = authorization
        answer = await send(request)
        if answer.status == _UNAUTHORIZED:
            answer.close()
            raise aiohttp.ClientConnectionError("401: the API server refuses our token")
        if "watch" not in request.url.query:
            note_list()
        return answer

    connector = aiohttp.TCPConnector(limit=0, ssl=access.tls or True)
    return aiohttp.ClientSession(connector=connector, trust_env=True, middlewares=[authorized])


def registry_of(events: Events, access: Access) -> kopf.OperatorRegistry:
    """Return the handlers: one for each kind, and all alike."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry, id="login")
    async def login(**_: object) -> kopf.AiohttpSession:
        session = session_of(access, events.note_list)
        return kopf.AiohttpSession(server=access.server, aiohttp_session=session)

    for kind in WATCHED:
        _watch(registry, kind, events)
    return registry


def _watch(registry: kopf.OperatorRegistry, kind: Kind, events: Events) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=kind.plural)
    async def take(event: kopf.RawEvent, **_: object) -> None:
        events.take(kind, event["type"], event["object"])


def kopf_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: no peering, no scanning, patient with the network."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = NothingRemembered()
    settings.networking.error_backoffs = EndlessBackoffs()
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = _PAGE
    settings.queueing.idle_timeout = _IDLE_S
    for kind in WATCHED:
        if selector := selector_of(kind):
            settings.watching.label_selectors[kind.plural] = selector
    return settings
