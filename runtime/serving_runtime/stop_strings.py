"""Stop strings in a text that comes in pieces.

The result does not depend on how the text is cut into pieces: the match that ends first wins, and
of those that end together the longest.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopChecker:
    """Looks for stop strings and holds back what may become one."""

    def __init__(self, stop_strings: Sequence[str], *, include_stop_string: bool) -> None:
        self._stop_strings = tuple(stop_strings)
        self._include = include_stop_string
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """Take in a piece and return what may be shown; nothing comes after a match."""
        if self.matched is not None or not self._stop_strings:
            return "" if self.matched is not None else text
        self._held += text
        found = self._first_match()
        if found is None:
            return self._release(len(self._held) - self._len_of_possible_stop())
        start, self.matched = found
        shown = self._release(start + len(self.matched) if self._include else start)
        self._held = ""
        return shown

    def flush(self) -> str:
        """Return what was held back: no further text comes."""
        return self._release(len(self._held))

    def _release(self, length: int) -> str:
        shown, self._held = self._held[:length], self._held[length:]
        return shown

    def _first_match(self) -> tuple[int, str] | None:
        starts = ((self._held.find(stop), stop) for stop in self._stop_strings)
        found = [(start + len(stop), start, stop) for start, stop in starts if start >= 0]
        if not found:
            return None
        _, start, stop = min(found)
        return start, stop

    def _len_of_possible_stop(self) -> int:
        """Return the length of the longest end of the text that begins a stop string."""
        longest = max(map(len, self._stop_strings)) - 1
        lengths = range(min(longest, len(self._held)), 0, -1)
        ends = ((length, self._held[-length:]) for length in lengths)
        return next((n for n, end in ends if self._may_begin_a_stop(end)), 0)

    def _may_begin_a_stop(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self._stop_strings)
