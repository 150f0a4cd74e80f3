"""How many replicas a rollout may take away and add, in numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from serving_contract.deployment import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Replicas that may be down by our doing, and replicas beyond dp."""

    max_unavailable: int
    max_surge: int


def of_rollout(rollout: Rollout, dp: int) -> Budget:
    """Round as promised: unavailable down, surge up, and never both to nothing."""
    surge = _replicas(rollout.max_surge, dp, math.ceil)
    unavailable = _replicas(rollout.max_unavailable, dp, math.floor)
    return Budget(max_unavailable=unavailable if surge else max(1, unavailable), max_surge=surge)


def _replicas(value: int | str, dp: int, rounded: Callable[[float], int]) -> int:
    if isinstance(value, int):
        return value
    # Percent of dp in exact integers first: 0.07 * 100 is more than 7.
    return rounded(int(value.removesuffix("%")) * dp / 100)
