"""The server's certificate, read again when its files change, as those of a mounted Secret do.

Both files are looked at when a client connects, at most once a second, and only a pair that fits is
taken. A context is never changed: each pair has its own, so no handshake meets half of a change.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

_LOOK_INTERVAL_S: Final = 1.0

Signature = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """A certificate chain and its private key, PEM files."""

    cert: Path
    key: Path


def ssl_context(tls: Tls, *, clock: Callable[[], float] = time.monotonic) -> ssl.SSLContext:
    """Return a server's context that always shows the newest pair of the two files.

    Raises:
        OSError: a file cannot be read now, or (`ssl.SSLError`) they are not a pair. Later that is
            logged and the last pair stays.
    """
    newest = _NewestPair(tls, clock)
    context = newest.context

    def choose(
        connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, asked: ssl.SSLContext
    ) -> None:
        connection.context = newest.look()

    # Despite its name it is called for clients that send no server name as well.
    context.sni_callback = choose
    return context


class _NewestPair:
    def __init__(self, tls: Tls, clock: Callable[[], float]) -> None:
        self._tls = tls
        self._clock = clock
        self._looked_at = clock()
        self._is_broken = False
        self._signature = _signature(tls)
        self.context = _load(tls)

    def look(self) -> ssl.SSLContext:
        """Return the context of the newest pair that could be loaded."""
        now = self._clock()
        if now - self._looked_at >= _LOOK_INTERVAL_S:
            self._looked_at = now
            self._renew()
        return self.context

    def _renew(self) -> None:
        try:
            signature = _signature(self._tls)
            if signature != self._signature:
                self.context = _load(self._tls)
                self._signature = signature
                _log.info("certificate %s read again", self._tls.cert)
            self._is_broken = False
        except OSError as error:
            if not self._is_broken:
                _log.warning("certificate %s stays as it was: %s", self._tls.cert, error)
            self._is_broken = True


def _signature(tls: Tls) -> Signature:
    stats = [path.stat() for path in (tls.cert, tls.key)]
    return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)


def _load(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # Without a password OpenSSL would ask the terminal for that of an encrypted key, and wait.
    context.load_cert_chain(tls.cert, tls.key, password="")
    return context
