"""What the kernel does not clean by itself when a cluster with real nodes ends, and its removal.

Processes, mounts, and the interfaces and iptables of nodes go with their namespaces. The bridge
and its rule, control groups, settings of the kernel and folders stay: they are written down before
they are made. The removal is done by whoever comes first: an orderly end, the janitor once its
cluster's process is gone however it went, or the next start.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import Final

from tests.cluster.bridge import remove_links, remove_rule
from tests.cluster.cgroups import remove_groups

# The kubelet changes them.
SETTINGS: Final = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
_PROC: Final = Path("/proc/sys")


class Leftovers:
    """The record of what a cluster will leave; one file, so one cluster at a time."""

    def __init__(self, record: Path) -> None:
        self._record = record

    def write_down(self, *, prefix: str, folders: list[Path]) -> None:
        """Record what is about to be made, and the settings as they are now.

        Interfaces and control groups are known by the beginning of their names.
        """
        settings = {name: (_PROC / name).read_text().strip() for name in SETTINGS}
        content = {
            "prefix": prefix,
            "folders": [str(folder) for folder in folders],
            "settings": settings,
        }
        unfinished = self._record.with_suffix(".new")
        unfinished.write_text(json.dumps(content))
        unfinished.rename(self._record)

    def remove(self) -> None:
        """Remove what is recorded, as far as it is there, and if all went well the record."""
        try:
            content = json.loads(self._record.read_text())
        except FileNotFoundError:
            return
        with contextlib.ExitStack() as steps:  # the last one first, and every one is tried
            for folder in content["folders"]:
                steps.callback(shutil.rmtree, folder, ignore_errors=True)
            for name, value in content["settings"].items():
                steps.callback(_restore, name, value)
            steps.callback(remove_rule)
            steps.callback(remove_links, content["prefix"])
            steps.callback(remove_groups, content["prefix"])
        self._record.unlink(missing_ok=True)


def _restore(name: str, value: str) -> None:
    if (_PROC / name).read_text().strip() != value:
        (_PROC / name).write_text(value)


def main() -> None:
    """Wait until the cluster's process is gone, then remove what it has left."""
    sys.stdin.read()
    with contextlib.suppress(KeyboardInterrupt):
        Leftovers(Path(sys.argv[1])).remove()


if __name__ == "__main__":
    main()
