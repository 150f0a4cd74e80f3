"""Pauses between tries: doubling, with jitter, so that many routers do not come back together."""

from __future__ import annotations

import random
from collections.abc import Callable

Uniform = Callable[[float, float], float]
"""Draws a number between two others."""


class Backoff:
    """Each pause lies between the half and the whole of a step; steps double up to the longest."""

    def __init__(
        self, *, first_s: float, longest_s: float, uniform: Uniform = random.uniform
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._uniform = uniform
        self._step_s = first_s

    def reset(self) -> None:
        """Begin again with the shortest pause."""
        self._step_s = self._first_s

    def next_s(self) -> float:
        """Return the next pause in seconds."""
        pause_s = self._uniform(self._step_s / 2, self._step_s)
        self._step_s = min(2 * self._step_s, self._longest_s)
        return pause_s
