"""Requests to etcd's JSON gateway: the two that make watches of the API server too old."""

from __future__ import annotations

import base64
import json
import urllib.request
from typing import Any, Final

_TIMEOUT_S: Final = 30


def raise_revision(url: str, times: int = 8) -> None:
    """Write a key that nobody reads, so that the revision goes on without the API server."""
    key = base64.b64encode(b"ascend-serving-tests").decode()
    for number in range(times):
        value = base64.b64encode(str(number).encode()).decode()
        _post(f"{url}/v3/kv/put", {"key": key, "value": value})


def compact(url: str) -> None:
    """Forget every revision before the newest."""
    newest = _post(f"{url}/v3/kv/range", {"key": base64.b64encode(b"x").decode()})
    revision = newest["header"]["revision"]
    _post(f"{url}/v3/kv/compaction", {"revision": revision, "physical": True})


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    # A proxy of the environment has no business with loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_TIMEOUT_S) as response:
        answer: dict[str, Any] = json.load(response)
        return answer
