"""Ports for servers that are killed and come back at the same address."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST: Final = 15000


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, outside those given to clients.

    While a server is down, a client's own connection could be given its port: the server could
    not come back, or a client that knocks would be connected to itself.
    """
    first_of_clients = int(_EPHEMERAL.read_text().split()[0])
    last = first_of_clients - 1 if first_of_clients > _FIRST else 65535
    while True:
        port = random.randint(_FIRST, last)
        if _is_free(port):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
