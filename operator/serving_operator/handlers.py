"""The kopf shell: watches, and tells the store and the queue. No decision is made here.

After a 410 kopf lists anew without telling what is gone (read in 1.45), so an event without a type
after start-up means that something may have been missed, and everything is listed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Final

import kopf

from serving_operator.body import text
from serving_operator.cluster import MANAGED
from serving_operator.kinds import SERVING_DEPLOYMENT, WATCHED, Kind
from serving_operator.store import Key, Store
from serving_operator.work_queue import WorkQueue
from serving_operator.workers import Workers

_log = logging.getLogger(__name__)

_BACKOFFS_S: Final = (1.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0)
_LAST_BACKOFF_S: Final = 20.0
_PAGE: Final = 50
"""Objects in one page of a list: nine kinds are listed at once, and that is the peak of memory."""
_IDLE_S: Final = 0.5
"""kopf has a task for each object that was heard of lately; ours have nothing to wait for."""


class EndlessBackoffs:
    """Pauses between tries of a request, without end: an outage is no reason to exit."""

    def __iter__(self) -> Iterator[float]:
        yield from _BACKOFFS_S
        while True:
            yield _LAST_BACKOFF_S


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
        if type_ is None and self.is_warm:
            self._workers.note_relist()
        key = self._store.put(kind.name, body)
        if type_ == "DELETED":
            metadata = ("namespace", "name", "uid")
            self._store.drop(kind.name, *(text(body, "metadata", field) for field in metadata))
        if key is not None:
            self._queue.add(key)


def registry_of(events: Events) -> kopf.OperatorRegistry:
    """Return the handlers: one for each kind, and all alike."""
    registry = kopf.OperatorRegistry()
    # As `access` does; after a 401 kopf calls it again, and it reads the token anew.
    kopf.on.login(registry=registry, id="login")(kopf.login_via_client)
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
    settings.networking.error_backoffs = EndlessBackoffs()
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = _PAGE
    settings.queueing.idle_timeout = _IDLE_S
    for kind in WATCHED:
        if kind is not SERVING_DEPLOYMENT:
            settings.watching.label_selectors[kind.plural] = MANAGED
    return settings
