"""Nodes that are objects only: registered, kept Ready by their leases, and removed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from tests.cluster.api import Api, Body
from tests.cluster.errors import ApiRefused

_NODES: Final = "/api/v1/nodes"
_LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_ROOM: Final = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "512Gi", "pods": "110"}


def now() -> str:
    """Return the time as the API server writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Node:
    """One node, with room for many pods and the devices that it is given."""

    def __init__(self, api: Api, name: str, resources: Mapping[str, str]) -> None:
        self.name = name
        self._api = api
        self._path = f"{_NODES}/{name}"
        self._resources = _ROOM | dict(resources)

    def register(self) -> None:
        """Make the node, Ready and open to pods."""
        labels = {"kubernetes.io/hostname": self.name, "type": "fake"}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": labels},
        }
        self._api.patch(self._path, node, "apply")
        self.renew_lease()
        self.report_ready()
        # A new node is born with the taint not-ready.
        self._api.patch(self._path, {"spec": {"taints": None}})

    def report_ready(self) -> None:
        """Write the node's status."""
        condition = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "kubelet is posting ready status",
            "lastHeartbeatTime": now(),
            "lastTransitionTime": now(),
        }
        status = {
            "capacity": self._resources,
            "allocatable": self._resources,
            "conditions": [condition],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        }
        self._api.patch(f"{self._path}/status", {"status": status}, "strategic")

    def stay_ready(self) -> None:
        """Renew the lease, and take back the word of those who took the node for dead."""
        self.renew_lease()
        if not self._is_ready():
            self.report_ready()

    def _is_ready(self) -> bool:
        conditions = self._api.get(self._path)["status"].get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def renew_lease(self) -> None:
        """Say that the node is alive."""
        renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        lease: Body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name},
            "spec": {
                "holderIdentity": self.name,
                "leaseDurationSeconds": 40,
                "renewTime": renewed,
            },
        }
        self._api.patch(f"{_LEASES}/{self.name}", lease, "apply")

    def remove(self) -> None:
        """Delete the node and its lease."""
        for path in (self._path, f"{_LEASES}/{self.name}"):
            with contextlib.suppress(ApiRefused):
                self._api.delete(path)
