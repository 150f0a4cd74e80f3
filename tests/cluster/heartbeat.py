"""The heartbeats of nodes without machines; a node whose heart stops is soon found lost."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterable, Mapping
from typing import Final

from tests.cluster.api import Api
from tests.cluster.errors import ApiRefused
from tests.cluster.node import Node

_PERIOD_S: Final = 1.0


class Heartbeat:
    """Registers nodes, keeps them Ready from a thread of its own, and removes them."""

    def __init__(self, api: Api, names: Iterable[str], resources: Mapping[str, str]) -> None:
        self._nodes = [Node(api, name, resources) for name in names]
        self._silent: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Return when the nodes are there and Ready."""
        for node in self._nodes:
            node.register()
        self._thread.start()

    def stop(self) -> None:
        """Remove the nodes."""
        self._stopping.set()
        self._thread.join()
        for node in self._nodes:
            node.remove()

    def silence(self, name: str) -> None:
        """Let a node's heart stop."""
        self._silent.add(name)

    def resume(self, name: str) -> None:
        """Let it beat again."""
        self._silent.discard(name)

    def _run(self) -> None:
        while not self._stopping.wait(_PERIOD_S):
            for node in self._nodes:
                if node.name not in self._silent:
                    self._beat(node)

    def _beat(self, node: Node) -> None:
        try:
            node.stay_ready()
        except (OSError, http.client.HTTPException):
            pass  # the API server is away; the next beat may reach it
        except ApiRefused as refused:
            if not refused.is_passing and refused.status != 404:  # a test may delete a node
                raise
