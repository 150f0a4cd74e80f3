"""Requests to etcd's JSON gateway: the two that make watches of the API server too old."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.request
from typing import Any, Final

from tests.cluster.certificates import Certificates

_TIMEOUT_S: Final = 30


def raise_revision(url: str, certificates: Certificates, times: int = 8) -> None:
    """Write a key that nobody reads, so that the revision goes on without the API server."""
    key = base64.b64encode(b"ascend-serving-tests").decode()
    for number in range(times):
        value = base64.b64encode(str(number).encode()).decode()
        _post(f"{url}/v3/kv/put", {"key": key, "value": value}, certificates)


def compact(url: str, certificates: Certificates) -> None:
    """Forget every revision before the newest."""
    key = base64.b64encode(b"x").decode()
    newest = _post(f"{url}/v3/kv/range", {"key": key}, certificates)
    revision = newest["header"]["revision"]
    _post(f"{url}/v3/kv/compaction", {"revision": revision, "physical": True}, certificates)


def _post(url: str, body: dict[str, Any], certificates: Certificates) -> dict[str, Any]:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    # A proxy of the environment has no business with loopback.
    tls = urllib.request.HTTPSHandler(context=_tls(certificates))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), tls)
    with opener.open(request, timeout=_TIMEOUT_S) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def _tls(certificates: Certificates) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=certificates.ca)
    made.load_cert_chain(certificates.server, certificates.server_key)
    return made
