"""What a machine must have before real nodes can run on it."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Final

from tests.cluster.binary import ASSETS
from tests.cluster.node_files import CNI_PROGRAMS

_PROGRAMS: Final = (
    "containerd", "ctr", "runc", "iptables", "conntrack", "ip", "nsenter", "unshare",
)  # fmt: skip
_CURE: Final = "run `make e2e-deps` as root"


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
    return None
