"""EndpointSlices as the API server writes them."""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]
READY = {"ready": True, "serving": True, "terminating": False}
LOADING = {"ready": False, "serving": False, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
GONE = {"ready": False, "serving": False, "terminating": True}
HTTP = {"name": "http", "port": 8000, "protocol": "TCP"}
SERVICE_LABEL = "kubernetes.io/service-name"


def endpoint(
    address: str,
    pod: str | None = None,
    uid: str | None = None,
    conditions: dict[str, bool] | None = READY,
) -> Body:
    """Return one endpoint; its uid is made of the pod's name."""
    body: Body = {"addresses": [address]}
    if conditions is not None:
        body["conditions"] = conditions
    if pod is not None:
        body["targetRef"] = {"kind": "Pod", "name": pod, "uid": uid or f"uid-{pod}"}
    return body


def slice_of(
    name: str,
    *endpoints: Body,
    version: int = 1,
    family: str = "IPv4",
    ports: list[Body] | None = None,
    service: str = "m-replicas",
) -> Body:
    """Return one slice."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "resourceVersion": str(version),
            "labels": {SERVICE_LABEL: service},
        },
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": [HTTP] if ports is None else ports,
    }
