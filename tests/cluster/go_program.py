"""Programs in Go, built once from pinned sources and kept outside the tree.

Each is cached under the hash of what it is made of, so a changed source or pin builds anew and
two checkouts share one build. The two that were used last are kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.errors import OTHER_WAYS, ClusterUnavailable
from tests.cluster.go import find_go
from tests.cluster.progress import say

_KEPT: Final = 2
_HASH_LENGTH: Final = 16
_SOURCES: Final = ("go.mod", "go.sum", "main.go")
_BUILD: Final = ("build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoProgram:
    """A module of one `main.go`.

    Attributes:
        title: what it is to the one who waits for its build.
    """

    name: str
    folder: Path
    title: str
    linker_flags: str = "-s -w"

    def content_hash(self) -> str:
        """Return the hash of what the program is made of."""
        digest = hashlib.sha256()
        for name in _SOURCES:
            source = self.folder / name
            digest.update(source.read_bytes() if source.exists() else b"")
        made_by = (*_BUILD, self.linker_flags, platform.system(), platform.machine())
        digest.update("\0".join(made_by).encode())
        return digest.hexdigest()[:_HASH_LENGTH]

    def built(self, cache: Path) -> Path:
        """Return the program, building it into `cache` if need be.

        Raises:
            ClusterUnavailable: if it cannot be built.
        """
        binary = cache / self.content_hash() / self.name
        if not binary.exists():
            with locked(binary.with_name("lock")):
                if not binary.exists():
                    self._build(binary, find_go(cache))
            _remove_older(binary)
        os.utime(binary)
        return binary

    def _build(self, binary: Path, go: Path) -> None:
        say(f"building {self.title}")
        unfinished = binary.with_name(f"{self.name}.{os.getpid()}")
        log = binary.with_name("build.log")
        try:
            if self._run_go(go, unfinished, log) != 0:
                raise ClusterUnavailable(self._why_not_built(log))
            unfinished.rename(binary)
        finally:
            unfinished.unlink(missing_ok=True)

    def _run_go(self, go: Path, target: Path, log: Path) -> int:
        with log.open("wb") as output:
            return subprocess.run(
                [str(go), *_BUILD, self.linker_flags, "-o", str(target), "."],
                cwd=self.folder,
                env=os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"},
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode

    def _why_not_built(self, log: Path) -> str:
        lines = log.read_text(errors="replace").splitlines()
        return (
            f"{self.title} cannot be built: {lines[-1] if lines else 'go said nothing'} "
            f"(all of it: {log}); {OTHER_WAYS}"
        )


def _remove_older(binary: Path) -> None:
    pattern = f"{'?' * _HASH_LENGTH}/{binary.name}"
    others = [path for path in binary.parents[1].glob(pattern) if path != binary]
    newest_first = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
    for old in newest_first[_KEPT - 1 :]:
        shutil.rmtree(old.parent, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a build; others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
