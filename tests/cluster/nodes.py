"""What a machine must have before real nodes can run on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.cluster.binary import ASSETS, cache_folder
from tests.cluster.cgroups import missing_for_groups
from tests.cluster.image_store import has_large_store
from tests.cluster.node_files import CNI_PROGRAMS

_PROGRAMS: Final = (
    "containerd", "ctr", "runc", "iptables", "conntrack", "ip", "nsenter", "unshare", "hostname",
)  # fmt: skip
_CURE: Final = "run `make e2e-deps` as root"
_NEEDED_GIB: Final = 20
"""For the project's images, unpacked and twice while a store is made anew."""
_UNFIT: Final = frozenset(
    {"overlayfs", "nfs", "cifs", "smb2", "v9fs", "fuseblk", "msdos", "ecryptfs"}
)
"""What overlayfs cannot write to, as `stat` names it."""


def missing_for_nodes() -> str | None:
    """Return in one line what real nodes lack here and the cure, or None."""
    if sys.platform != "linux":
        return (
            f"real nodes need Linux, and this is {sys.platform}; use `make cluster` without NODES"
        )
    if os.geteuid() != 0:
        return f"real nodes need root (user id 0, this is {os.geteuid()}); {_CURE}, then this again"
    if os.environ.get(ASSETS):
        return f"real nodes need the kubelet, which {ASSETS} does not hold; unset it"
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if not any(path.exists() for path in CNI_PROGRAMS):
        missing.append("CNI plugins")
    if missing:
        return f"real nodes need {', '.join(missing)}; {_CURE}"
    lacking = missing_for_groups() or missing_for_disks(cache_folder(os.environ))
    return f"real nodes need {lacking}" if lacking else None


def missing_for_disks(cache: Path) -> str | None:
    """Return what the file system of the nodes' disks lacks and the cure, or None."""
    there = next(path for path in (cache, *cache.parents) if path.exists())
    kind = _file_system(there)
    if kind in _UNFIT:
        return (
            f"a file system that overlayfs can write to, and {cache} is on {kind}; "
            "name a folder of a local disk with XDG_CACHE_HOME"
        )
    free = shutil.disk_usage(there).free >> 30
    if free < _NEEDED_GIB and not has_large_store(cache):
        return (
            f"{_NEEDED_GIB} GiB free for images in {cache}, which has {free}; "
            "make room, or name another folder with XDG_CACHE_HOME"
        )
    return None


def _file_system(path: Path) -> str:
    command = ["stat", "--file-system", "--format=%T", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
