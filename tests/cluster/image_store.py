"""Images imported once for all nodes: roots of containerd that nodes take as hard links.

A store is kept under the hash of what its archives hold. A new one starts as a copy of the newest
and imports only what that lacks, so a changed small image does not cost the import of a large one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tests.cluster.errors import ClusterUnavailable
from tests.cluster.image_archive import Archive
from tests.cluster.node_files import write_import_config
from tests.cluster.process import Entered, Process
from tests.cluster.progress import say

_KEPT: Final = 2
_LARGE_BYTES: Final = 1 << 30
_LARGE: Final = "large"
_FOLDER: Final = "node-images"
_HELD: Final = "archives.json"
_READY_TIMEOUT_S: Final = 60
_POLL_S: Final = 0.05


class ImageStore:
    """The stores of one cache folder; one process at a time uses them."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache / _FOLDER

    def root_with(self, archives: Iterable[Archive]) -> Path:
        """Return a containerd root that holds exactly the images of `archives`, unpacked.

        Raises:
            ClusterUnavailable: if an archive cannot be imported.
        """
        wanted = {archive.identity: archive for archive in archives}
        # Small stores, made anew in a second, neither displace large ones nor start as their copy.
        size = sum(archive.path.stat().st_size for archive in wanted.values())
        peers = self._cache / (_LARGE if size > _LARGE_BYTES else "small")
        store = peers / hashlib.sha256("".join(sorted(wanted)).encode()).hexdigest()[:16]
        if not store.exists():
            _make(store, wanted)
        os.utime(store)
        for old in _newest_first(peers)[_KEPT:]:
            shutil.rmtree(old)
        return store / "root"


def has_large_store(cache: Path) -> bool:
    """Return whether a cache folder already has a store of the size that the project's need."""
    return bool(_newest_first(cache / _FOLDER / _LARGE))


def _make(store: Path, wanted: dict[str, Archive]) -> None:
    store.parent.mkdir(parents=True, exist_ok=True)
    for unfinished in store.parent.glob("*.new"):
        shutil.rmtree(unfinished)
    new = store.with_name(f"{store.name}.new")
    new.mkdir()
    held = _start_from_newest(new)
    with _containerd(new / "root") as ctr:
        for archive in wanted.values():
            if archive.identity not in held:
                say(f"importing {archive.path.name} for the nodes (once)")
                import_archive(ctr, archive)
        for name in _listed(ctr) - {name for kept in wanted.values() for name in kept.names}:
            _run([*ctr, "images", "rm", "--sync", name])
    (new / _HELD).write_text(json.dumps(sorted(wanted)))
    new.rename(store)


def _start_from_newest(new: Path) -> list[str]:
    newest = next(iter(_newest_first(new.parent)), None)
    if newest is None:
        return []
    copy_root(newest / "root", new / "root")
    held: list[str] = json.loads((newest / _HELD).read_text())
    return held


def _newest_first(peers: Path) -> list[Path]:
    stores = [path.parent for path in peers.glob(f"*/{_HELD}")]
    return sorted(stores, key=lambda path: path.stat().st_mtime, reverse=True)


def copy_root(source: Path, target: Path) -> None:
    """Make a containerd root of its own at `target` that shares the contents of `source`.

    containerd writes in place only to its databases, so these are copied and the rest is linked.
    """
    _run(["cp", "--archive", "--link", str(source), str(target)])
    for database in source.glob("*/*.db"):
        copy = target / database.relative_to(source)
        copy.unlink()
        shutil.copy2(database, copy)


def import_archive(ctr: list[str], archive: Archive) -> None:
    """Import what an archive holds by way of a running containerd.

    Raises:
        ClusterUnavailable: if it refuses, or the images have other names then.
    """
    _run([*ctr, "images", "import", str(archive.path)])
    if missing := set(archive.names) - _listed(ctr):
        raise ClusterUnavailable(
            f"{archive.path} holds {', '.join(sorted(missing))}, which containerd calls otherwise; "
            "name images in full, such as docker.io/local/app:1"
        )


def _listed(ctr: list[str]) -> set[str]:
    return set(_run([*ctr, "images", "ls", "--quiet"]).split())


@contextlib.contextmanager
def _containerd(root: Path) -> Iterator[list[str]]:
    """Run a containerd of its own over `root`, and say how it is asked."""
    with tempfile.TemporaryDirectory(prefix="asimg-") as scratch:  # sockets have short paths
        folder = Path(scratch)
        root.mkdir(exist_ok=True)
        (folder / "root").symlink_to(root)
        config = write_import_config(folder)
        own = [
            _path("unshare"),
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        ]
        command = [*own, "containerd", "--config", str(config)]
        process = Entered("containerd", command, folder / "log")
        try:
            ctr = ["ctr", "--address", str(folder / "sock"), "--namespace", "k8s.io"]
            _wait(process, ctr)
            yield ctr
        finally:
            process.kill()


def _wait(process: Process, ctr: list[str]) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while subprocess.run([*ctr, "version"], capture_output=True, check=False).returncode != 0:
        if not process.is_running or time.monotonic() > deadline:
            raise ClusterUnavailable(f"containerd does not come up:\n{process.tail()}")
        time.sleep(_POLL_S)


def _path(program: str) -> str:
    return shutil.which(program) or program


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = done.stderr.strip() or done.stdout.strip()
        raise ClusterUnavailable(f"{' '.join(command[:6])}: {words}")
    return done.stdout
