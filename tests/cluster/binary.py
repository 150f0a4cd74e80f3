"""The binaries of the control plane: built once from the pinned module, kept outside the tree.

The one binary holds every component. It is cached under the hash of what it is made of, so a
changed pin builds anew and two checkouts share one build. `KUBEBUILDER_ASSETS` replaces it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.errors import OTHER_WAYS, ClusterUnavailable
from tests.cluster.go import find_go
from tests.cluster.progress import say

VERSION: Final = "v1.34.2"
ASSETS: Final = "KUBEBUILDER_ASSETS"
_MODULE: Final = Path(__file__).parent
_SOURCES: Final = ("go.mod", "go.sum", "main.go")
_STAMP: Final = "k8s.io/component-base/version"
# Unstamped components call themselves v0.0.0-master, and what checks the version refuses that.
_LINKER_FLAGS: Final = (
    f"-s -w -X {_STAMP}.gitVersion={VERSION} -X {_STAMP}.gitMajor=1 -X {_STAMP}.gitMinor=34"
    f" -X {_STAMP}.gitTreeState=clean"
)
_BUILD: Final = (
    "build",
    "-mod=readonly",
    "-buildvcs=false",
    "-trimpath",
    "-ldflags",
    _LINKER_FLAGS,
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where each component is: one binary that is told its part, or a folder with one file each."""

    one: Path | None = None
    folder: Path | None = None

    def command(self, component: str) -> list[str]:
        """Return how the command line of a component begins."""
        if self.one is not None:
            return [str(self.one), component]
        assert self.folder is not None
        return [str(self.folder / component)]

    def has(self, component: str) -> bool:
        """Return whether the component can be started."""
        return self.one is not None or Path(self.command(component)[0]).exists()


def binaries(environment: Mapping[str, str]) -> Binaries:
    """Return the binaries, building them if need be.

    Raises:
        ClusterUnavailable: if they can neither be found nor built.
    """
    if assets := environment.get(ASSETS):
        return _assets(Path(assets))
    return Binaries(one=_cached(cache_folder(environment)))


def _assets(folder: Path) -> Binaries:
    found = Binaries(folder=folder)
    needed = ("etcd", "kube-apiserver", "kubectl")
    if missing := [component for component in needed if not found.has(component)]:
        raise ClusterUnavailable(
            f"{ASSETS}={folder} lacks {', '.join(missing)}; "
            "name a folder that holds them, or unset it to have them built"
        )
    return found


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder of everything that the test cluster keeps between runs."""
    home = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ascend-serving" / "cluster"


def content_hash() -> str:
    """Return the hash of what the binary is made of."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((_MODULE / name).read_bytes())
    digest.update("\0".join((*_BUILD, platform.system(), platform.machine())).encode())
    return digest.hexdigest()[:16]


def _cached(cache: Path) -> Path:
    binary = cache / content_hash() / "kube"
    if not binary.exists():
        with _locked(binary.with_name("lock")):
            if not binary.exists():
                _build(binary, find_go(cache))
    return binary


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(binary: Path, go: Path) -> None:
    say(f"building the test cluster's binary (Kubernetes {VERSION}, about 7 minutes, once)")
    unfinished = binary.with_name(f"kube.{os.getpid()}")
    command = [str(go), *_BUILD, "-o", str(unfinished), "."]
    log = binary.with_name("build.log")
    with log.open("wb") as output:
        done = subprocess.run(
            command,
            cwd=_MODULE,
            env=os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        unfinished.unlink(missing_ok=True)
        raise ClusterUnavailable(_why_not_built(log))
    unfinished.rename(binary)


def _why_not_built(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return (
        f"the test cluster's binary cannot be built: {lines[-1] if lines else 'go said nothing'} "
        f"(all of it: {log}); {OTHER_WAYS}"
    )
