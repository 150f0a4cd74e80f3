"""How many processor cores the process may use: what it may be scheduled on, and its quota.

A container with a limit of two CPUs on a machine of 64 cores sees all of them; with a thread on
each it would spend its quota in a fraction of every period and stand still for the rest.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

CGROUP: Final = Path("/sys/fs/cgroup")
_V2: Final = "cpu.max"
_V1: Final = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Return the number of cores, at least 1; a part of a core counts as one.

    Args:
        cgroup: where the process's own control group is mounted, as in a container.
    """
    allowed = len(os.sched_getaffinity(0))
    return max(1, math.ceil(min(allowed, _quota(cgroup))))


def _quota(cgroup: Path) -> float:
    """Return the cores that cgroup v2 or v1 grants; without a limit there are more than any."""
    words = (_read(cgroup / _V2) or " ".join(_read(cgroup / name) for name in _V1)).split()
    if len(words) != 2 or not words[0].isdecimal():
        return math.inf
    return int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
