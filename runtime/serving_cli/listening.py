"""The port that a command serves on."""

from __future__ import annotations

import socket

from serving_cli.errors import UsageError
from serving_http.serve import bind


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen.

    Raises:
        UsageError: the address is in use, not ours, or unknown.
    """
    try:
        return bind(host, port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"--host {host} --port {port}: {reason}; choose another") from error
