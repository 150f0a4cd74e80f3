"""One list and watch in a thread of its own, which survives restarts of the API server."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from tests.cluster.api import Api, Body
from tests.cluster.errors import ApiRefused

_RETRY_S: Final = 0.1
# A frozen API server accepts connections and says nothing.
_CONNECT_TIMEOUT_S: Final = 5


class Reader(Protocol):
    """What is told of the collection; called from the watch's thread, in order."""

    def replace(self, items: list[Body]) -> None:
        """The collection is these; what came between this and the last event is unknown."""

    def event(self, kind: str, item: Body) -> None:
        """One object was ADDED, MODIFIED or DELETED."""


class Watch:
    """Tells its reader what happens to the collection at `path`."""

    def __init__(
        self, api: Api, path: str, reader: Reader, params: Mapping[str, str] | None = None
    ) -> None:
        self._api = api
        self._path = path
        self._reader = reader
        self._params = dict(params or {})
        self._version: str | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the watch, wherever it waits."""
        self._stopping.set()
        with self._lock:
            if self._socket is not None:
                _shut_down(self._socket)
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            # Whatever ends a connection is met in one way: connect again, from where we were.
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._follow()
            self._stopping.wait(_RETRY_S)

    def _follow(self) -> None:
        try:
            with contextlib.closing(self._api.connect(_CONNECT_TIMEOUT_S)) as connection:
                if self._version is None:
                    self._list(connection)
                self._watch(connection)
        except ApiRefused as refused:
            if refused.status == 410:
                self._version = None
            elif not refused.is_passing:
                raise

    def _list(self, connection: http.client.HTTPSConnection) -> None:
        response = self._api.send(connection, "GET", self._path, params=self._params)
        answer = json.load(response)
        self._reader.replace(answer["items"])
        self._version = answer["metadata"]["resourceVersion"]

    def _watch(self, connection: http.client.HTTPSConnection) -> None:
        assert self._version is not None
        params = {"watch": "true", "resourceVersion": self._version, "allowWatchBookmarks": "true"}
        response = self._api.send(connection, "GET", self._path, params=self._params | params)
        assert isinstance(connection.sock, socket.socket)
        with self._interruptible(connection.sock):
            while line := response.readline():
                self._take(json.loads(line))

    @contextlib.contextmanager
    def _interruptible(self, connected: socket.socket) -> Iterator[None]:
        connected.settimeout(None)
        with self._lock:
            self._socket = connected
            if self._stopping.is_set():
                _shut_down(connected)
        try:
            yield
        finally:
            with self._lock:
                self._socket = None

    def _take(self, event: Body) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            raise ApiRefused(item["code"], item.get("reason", ""), item.get("message", ""))
        self._version = item["metadata"]["resourceVersion"]
        if kind != "BOOKMARK":
            self._reader.event(kind, item)


def _shut_down(connected: socket.socket) -> None:
    # Of the plain socket: the TLS layer belongs to the thread that reads from it.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
