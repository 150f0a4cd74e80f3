"""Where the program begins: signals first, because imports take most of a second.

SIGTERM ends a command that serves nothing yet with exit code 0, as there is nothing to drain.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line of this process."""
    signal.signal(signal.SIGTERM, _end)
    try:
        from serving_cli.main import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("ascend-serving: interrupted")


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
