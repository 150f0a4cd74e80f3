"""Everything that ever happened to the pods of a namespace, in the order in which it happened."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from tests.cluster.api import Api, Body
from tests.cluster.watch import Watch


@dataclass(frozen=True, slots=True)
class PodEvent:
    """An object was ADDED, MODIFIED or DELETED; `pod` is all of it as it was then."""

    kind: str
    pod: Body

    @property
    def name(self) -> str:
        name: str = self.pod["metadata"]["name"]
        return name

    @property
    def uid(self) -> str:
        uid: str = self.pod["metadata"]["uid"]
        return uid

    @property
    def version(self) -> int:
        return _version(self.pod)


class PodWatch:
    """Records the pods of a namespace, for proofs such as "never two pods of one index".

    Attributes:
        gaps: how often events were lost (a watch too old); a proof needs 0.
    """

    def __init__(self, api: Api, namespace: str) -> None:
        self.gaps = -1  # the first list is none
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._lock = threading.Lock()
        self._events: list[PodEvent] = []
        self._watch = Watch(api, self._path, self)

    def __enter__(self) -> Self:
        self._watch.start()
        self._api.wait(lambda: self.gaps >= 0, f"first list of {self._path}")
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.stop()

    def events(self) -> list[PodEvent]:
        """Return what was received until now, which includes all that happened until the call."""
        listed = self._api.get(self._path)
        self._api.wait(lambda: self._has_seen(listed), f"watch of {self._path} is at the list")
        with self._lock:
            return list(self._events)

    def states(self) -> Iterator[list[Body]]:
        """Yield the pods that were there after each event."""
        there: dict[str, Body] = {}
        for event in self.events():
            _follow(there, event)
            yield list(there.values())

    def replace(self, items: list[Body]) -> None:
        """Part of Reader."""
        with self._lock:
            self.gaps += 1
            listed = {pod["metadata"]["uid"] for pod in items}
            gone = [pod for uid, pod in self._there().items() if uid not in listed]
            self._events += [PodEvent("DELETED", pod) for pod in gone]
            self._events += [PodEvent("ADDED", pod) for pod in items]

    def event(self, kind: str, item: Body) -> None:
        """Part of Reader."""
        with self._lock:
            self._events.append(PodEvent(kind, item))

    def _there(self) -> dict[str, Body]:
        there: dict[str, Body] = {}
        for event in self._events:
            _follow(there, event)
        return there

    def _has_seen(self, listed: Body) -> bool:
        until = int(listed["metadata"]["resourceVersion"])
        with self._lock:
            newest = {event.uid: event.version for event in self._events}
            there = self._there()
        wanted = {pod["metadata"]["uid"]: _version(pod) for pod in listed["items"]}
        leavers_are_gone = all(uid in wanted or newest[uid] > until for uid in there)
        return leavers_are_gone and all(newest.get(uid, 0) >= wanted[uid] for uid in wanted)


def _follow(there: dict[str, Body], event: PodEvent) -> None:
    there[event.uid] = event.pod
    if event.kind == "DELETED":
        del there[event.uid]


def _version(pod: Body) -> int:
    return int(pod["metadata"]["resourceVersion"])
