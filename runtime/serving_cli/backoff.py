"""How long to wait before the next try."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_S = 1.0
LONGEST_S = 60.0
FORGIVEN_AFTER_S = 60.0
"""A replica that was ready for this long starts anew with the first wait."""


@dataclass(slots=True)
class Backoff:
    """1, 2, 4 .. 60 s."""

    _failures: int = 0

    def next_delay_s(self, *, was_ready_for_s: float) -> float:
        """Return the wait after one more failure."""
        if was_ready_for_s >= FORGIVEN_AFTER_S:
            self._failures = 0
        delay = min(LONGEST_S, FIRST_S * 2.0**self._failures)
        self._failures += 1
        return delay
