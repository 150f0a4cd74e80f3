"""One cluster with real nodes at a time on a machine, and nothing left of it afterwards.

A lock says whose turn it is. A janitor, a process that outlives ours, holds it as well: it waits
for the end of a pipe that only we hold, so it cleans however we end, and only then is the lock
free. Should the janitor die too, the next cluster cleans before it starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
from pathlib import Path
from typing import IO, Final, Self

from tests.cluster.leftovers import Leftovers
from tests.cluster.progress import say

_ROOT: Final = Path(__file__).parents[2]
# The machine's, as are the names of what is made; and gone with that when it starts anew.
_FOLDER: Final = Path("/run/ascend-serving-nodes")
RECORD: Final = _FOLDER / "leftovers.json"


class Tenancy:
    """The right to run nodes here; a context manager that ends it."""

    def __init__(
        self, lock: IO[str], leftovers: Leftovers, janitor: subprocess.Popen[bytes]
    ) -> None:
        self._lock = lock
        self._leftovers = leftovers
        self._janitor = janitor

    @classmethod
    def begin(cls) -> Self:
        """Wait until no other such cluster runs here, and remove what a dead one has left."""
        _FOLDER.mkdir(mode=0o700, exist_ok=True)
        lock = (_FOLDER / "lock").open("a")
        try:
            _acquire(lock)
            leftovers = Leftovers(RECORD)
            leftovers.remove()
            return cls(lock, leftovers, _janitor(RECORD, lock))
        except BaseException:
            lock.close()
            raise

    def will_make(self, *, prefix: str, folders: list[Path]) -> None:
        """Record what is about to be made, for whoever has to remove it."""
        self._leftovers.write_down(prefix=prefix, folders=folders)

    def end(self) -> None:
        """Remove everything that is left, and let others go on."""
        with contextlib.ExitStack() as steps:  # the last one first, and every one is tried
            steps.callback(self._lock.close)
            steps.callback(self._end_janitor)
            steps.callback(self._leftovers.remove)

    def _end_janitor(self) -> None:
        assert self._janitor.stdin is not None
        self._janitor.stdin.close()
        self._janitor.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _acquire(lock: IO[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another cluster with real nodes runs on this machine: waiting for its end")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _janitor(record: Path, lock: IO[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.leftovers", str(record)],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        pass_fds=[lock.fileno()],
        start_new_session=True,  # a Ctrl-C at the terminal is not for it
    )
