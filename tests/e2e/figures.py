"""Figures that the run measures: printed at its end, never asserted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(slots=True)
class Figures:
    """Named figures in the order in which they were taken."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def note(self, what: str, value: str) -> None:
        """Add one."""
        self.rows.append((what, value))

    def seconds(self, what: str, value: float) -> None:
        """Add a time."""
        self.note(what, f"{value:.2f} s")


FIGURES: Final = Figures()
