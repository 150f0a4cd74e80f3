"""The only registry that nodes know. It has nothing, and says so at once.

A node has no way out. Without this, an image that was not imported would be looked for in vain
until some time limit, and the kubelet's words would be about connections.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

_ANSWER: Final = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "not imported"}]}'


class EmptyRegistry:
    """Serves HTTP at a free port of an address, from a thread of its own."""

    def __init__(self, address: str) -> None:
        self._server = ThreadingHTTPServer((address, 0), _NotFound)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="empty-registry", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def stop(self) -> None:
        """Close it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _NotFound(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(_ANSWER)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(_ANSWER)

    do_HEAD = do_GET  # noqa: N815 (its own name)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its own name)
        """Say nothing."""
