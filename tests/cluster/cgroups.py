"""The control groups of the nodes, in every hierarchy that the machine has."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")
_INHERITED: Final = ("cpuset.cpus", "cpuset.mems")
_CONTROLLERS: Final = frozenset({"cpu", "cpuset", "memory", "pids"})
_LIMITS: Final = ("memory.limit_in_bytes", "memory.max")
_USAGE: Final = {"memory.limit_in_bytes": "memory.usage_in_bytes", "memory.max": "memory.current"}
_ROOM_BYTES: Final = 8 << 20
# Fills a file in memory from within a group. So small a process is the last that the kernel ends,
# and the kubelet has marked every process of a pod as one to end first.
_HOG: Final = 'echo 0 > "$1" && exec head -c "$2" /dev/zero'
_GONE_TIMEOUT_S: Final = 30
_POLL_S: Final = 0.02


def make_groups(name: str) -> Path:
    """Make a group with all that the machine has; return where its own processes join it.

    Those of pods go to groups below it.
    """
    for hierarchy in _hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        for file in _INHERITED:
            # In cgroup v2 the root has none, and the others have them from it.
            if (group / file).exists() and (hierarchy / file).exists():
                (group / file).write_text((hierarchy / file).read_text())
    # One that the kubelet does not look at when it finds out where it runs itself.
    pids = _ROOT / "pids"
    own = (pids if pids in _hierarchies() else _hierarchies()[0]) / name / "system"
    own.mkdir(exist_ok=True)
    return own / "cgroup.procs"


def missing_for_groups(root: Path = _ROOT) -> str | None:
    """Return what the groups of pods lack here and the cure, or None."""
    if not (root / "cgroup.controllers").exists():
        return None  # v1 has no such conditions
    if missing := _CONTROLLERS - _words(root / "cgroup.controllers"):
        return (
            f"the cgroup v2 controllers {', '.join(sorted(missing))} in {root}; "
            "delegate them, or use the machine itself instead of a container"
        )
    # Only the machine's own root group, which has no type, may hold processes beside groups.
    is_blocked = (root / "cgroup.type").exists() and _members(root)
    if is_blocked and (off := _CONTROLLERS - _words(root / "cgroup.subtree_control")):
        return (
            f"the cgroup v2 controllers {', '.join(sorted(off))} enabled in {root}, which cannot "
            "be done while that group holds processes; start the container with --cgroupns=host"
        )
    return None


def remove_groups(prefix: str) -> None:
    """Remove every group whose name begins so, and end what is still in it.

    A node that starts with groups of its last life is not Ready for a minute.
    """
    deadline = time.monotonic() + _GONE_TIMEOUT_S
    while groups := _groups(prefix):
        for group in groups:
            _remove(group)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes do not leave {groups[0]}")
        time.sleep(_POLL_S)


def group_names(prefix: str) -> list[str]:
    """Return the groups whose name begins so."""
    return [str(group) for group in _groups(prefix)]


def processes_of(group: str, container: str) -> list[int]:
    """Return the processes of a container somewhere below a group, as the host numbers them."""
    return _members(_group_of(group, container))


def exhaust_memory(group: str, container: str) -> None:
    """Let the kernel end a container for its memory: limit what it has, and use the rest up."""
    found = _group_of(group, container)
    limit = next(found / name for name in _LIMITS if (found / name).exists())
    room = int((found / _USAGE[limit.name]).read_text()) + _ROOM_BYTES
    limit.write_text(str(room))
    for name, most in (("memory.memsw.limit_in_bytes", room), ("memory.swap.max", 0)):
        if (found / name).exists():
            (found / name).write_text(str(most))
    hog = ["sh", "-c", _HOG, "hog", str(found / "cgroup.procs"), str(room)]
    with tempfile.TemporaryFile(dir="/dev/shm") as memory:
        subprocess.run(hog, stdout=memory, stderr=subprocess.DEVNULL, check=False)


def _group_of(group: str, container: str) -> Path:
    memory = _ROOT / "memory"
    top = (memory if memory in _hierarchies() else _hierarchies()[0]) / group
    for found in top.rglob(f"*{container}*/cgroup.procs"):
        return found.parent
    raise FileNotFoundError(f"no container {container} below {top}")


def _groups(prefix: str) -> list[Path]:
    return [group for root in _hierarchies() for group in root.glob(f"{prefix}*")]


def _hierarchies() -> list[Path]:
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    folders = [path for path in sorted(_ROOT.iterdir()) if not path.is_symlink()]
    return [path for path in folders if (path / "cgroup.procs").exists()]


def _remove(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        group = Path(folder)
        # What is busy, or gone meanwhile, is seen in the next round.
        with contextlib.suppress(OSError):
            for pid in _members(group):
                os.kill(pid, signal.SIGKILL)
            group.rmdir()


def _words(file: Path) -> set[str]:
    return set(file.read_text().split())


def _members(group: Path) -> list[int]:
    return [int(line) for line in (group / "cgroup.procs").read_text().split()]
