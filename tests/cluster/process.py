"""One component as a process: started so that it dies with us, its log in a file of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_TAIL_LINES: Final = 15
_LEAVE_TIMEOUT_S: Final = 30
# PR_SET_PDEATHSIG (1) survives execve. A parent that died before the call is seen by its id.
_GUARD: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Process:
    """A running component.

    The kernel kills it when the *thread* that made it ends: make it in one that lasts.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        guard = [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid())]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*guard, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it at once and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Stop it where it is; its connections stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def tail(self) -> str:
        """Return the last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])


class Entered(Process):
    """A program that `unshare` or `nsenter` forks, to be in namespaces of its own."""

    @property
    def inner(self) -> int:
        """The process id of the program itself; 0 while there is none."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        try:
            return int(children.read_text().split()[0])
        except (OSError, IndexError):
            return 0

    def kill(self) -> None:
        """End the program at once, and wait until it is gone; the outer one ends with it."""
        inner = self.inner
        if inner:
            with contextlib.suppress(ProcessLookupError):
                os.kill(inner, signal.SIGKILL)
            # As long as processes of an ended namespace leave, its first one is waited for.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LEAVE_TIMEOUT_S)
        super().kill()
