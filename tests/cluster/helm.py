"""The program helm: built once from its pinned module, kept outside the tree.

Apart from GoProgram, which builds sources of this tree: helm is another project's module, fetched
at a fixed version that the Go checksum database vouches for.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.cluster.binary import cache_folder
from tests.cluster.errors import ClusterUnavailable
from tests.cluster.go import find_go
from tests.cluster.go_program import locked
from tests.cluster.progress import say

VERSION: Final = "v3.21.4"
_MODULE: Final = "helm.sh/helm/v3"
_PACKAGE: Final = f"{_MODULE}/cmd/helm@{VERSION}"
# Unstamped, `helm template` takes Kubernetes 1.20 for granted, which no released helm does.
_LINKER_FLAGS: Final = " ".join(
    (
        "-s -w",
        f"-X {_MODULE}/internal/version.version={VERSION}",
        *(
            f"-X {_MODULE}/pkg/{package}.k8sVersion{part}={number}"
            for package in ("chartutil", "lint/rules")
            for part, number in (("Major", 1), ("Minor", 34))
        ),
    )
)
_INSTALL: Final = ("install", "-trimpath", "-ldflags", _LINKER_FLAGS, _PACKAGE)


def helm(environment: Mapping[str, str]) -> Path:
    """Return helm, building it if need be.

    Raises:
        ClusterUnavailable: if it cannot be built.
    """
    cache = cache_folder(environment)
    binary = cache / f"helm-{_content_hash()}" / "helm"
    if not binary.exists():
        with locked(binary.with_name("lock")):
            if not binary.exists():
                _build(binary, find_go(cache))
    return binary


def _content_hash() -> str:
    made_by = (*_INSTALL, platform.system(), platform.machine())
    return hashlib.sha256("\0".join(made_by).encode()).hexdigest()[:16]


def _build(binary: Path, go: Path) -> None:
    say(f"building helm {VERSION} (about 5 minutes, once)")
    unfinished = binary.with_name(f"bin.{os.getpid()}")
    log = binary.with_name("build.log")
    try:
        with log.open("wb") as output:
            done = subprocess.run(
                [str(go), *_INSTALL],
                env=os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOBIN": str(unfinished)},
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode == 0:
            (unfinished / "helm").rename(binary)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if done.returncode != 0:
        raise ClusterUnavailable(_why_not_built(log))


def _why_not_built(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return (
        f"helm {VERSION} cannot be built: {lines[-1] if lines else 'go said nothing'} "
        f"(all of it: {log}); it takes Go and its module proxy, see GOPROXY"
    )
