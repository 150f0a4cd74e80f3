"""API keys from a folder, as Kubernetes mounts a Secret: one file per client, read when it changes.

A mounted Secret is swapped as a whole behind links whose names begin with `..`; those are no keys.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

_LOOK_INTERVAL_S: Final = 1.0

Signature = tuple[tuple[str, int, int, int], ...]


class MountedApiKeys:
    """Keys given at the start and keys in a folder.

    Raises:
        OSError: the folder cannot be read now. Later that is logged and the last keys stay valid.
    """

    def __init__(
        self,
        folder: Path,
        given: Iterable[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._given = tuple(given)
        self._clock = clock
        self._signature = _signature(folder)
        self._mounted = _read(folder)
        self._looked_at = clock()
        self._is_broken = False

    def current(self) -> tuple[str, ...]:
        """Return every valid key; looks at the folder at most once a second."""
        now = self._clock()
        if now - self._looked_at >= _LOOK_INTERVAL_S:
            self._looked_at = now
            self._look()
        return self._given + self._mounted

    def _look(self) -> None:
        try:
            signature = _signature(self._folder)
            if signature != self._signature:
                self._mounted = _read(self._folder)
                self._signature = signature
                names = ", ".join(name for name, *_ in signature) or "none, nobody gets in"
                _log.info("API keys read again: %s", names)
            self._is_broken = False
        except OSError as error:
            if not self._is_broken:
                _log.warning("API keys stay as they were: %s", error)
            self._is_broken = True


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if not path.name.startswith("..") and path.is_file()
    )


def _signature(folder: Path) -> Signature:
    stats = [(path.name, path.stat()) for path in _files(folder)]
    return tuple((name, stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def _read(folder: Path) -> tuple[str, ...]:
    keys = (_text(path.read_bytes()).removesuffix("\n") for path in _files(folder))
    return tuple(key.removesuffix("\r") for key in keys if key.strip())


def _text(content: bytes) -> str:
    """Decode a key that may hold any bytes; they come back when it is compared."""
    return content.decode(errors="surrogateescape")
