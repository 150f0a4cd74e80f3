"""One line for the one who waits: what takes minutes says so."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Write a line to standard error."""
    print(line, file=sys.stderr, flush=True)
