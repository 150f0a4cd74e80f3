"""How long an answer will be, learned: one estimator for replica and router.

The router fixes the expected output when it accepts a request and sends it along, so both sides
count the same number; a request that comes without one gets the replica's own estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

UNLEARNED_TOKENS: Final = 256
"""Expected output until enough answers have been seen."""
MIN_ANSWERS: Final = 20
WEIGHT: Final = 0.05
"""Of a new answer in the moving mean: about the last 20 answers count."""
MARGIN: Final = 1.2
"""Expected over mean: an answer that is cut short costs less than one that turns up late."""
UNLEARNED_BYTES_PER_TOKEN: Final = 4.0


@dataclass(slots=True)
class OutputEstimator:
    """Expected output tokens of one answer, learned for one (model, route)."""

    _mean: float = 0.0
    _answers: int = 0

    def learn(self, output_tokens: int) -> None:
        """Take in the length of one finished answer (one sequence)."""
        self._answers += 1
        weight = max(WEIGHT, 1 / self._answers)
        self._mean += weight * (output_tokens - self._mean)

    def expect(self, max_tokens: int | None) -> int:
        """Return the expected output of one sequence: at least 1, never above `max_tokens`."""
        learned = math.ceil(self._mean * MARGIN)
        expected = learned if self._answers >= MIN_ANSWERS else UNLEARNED_TOKENS
        return max(1, expected if max_tokens is None else min(expected, max_tokens))


def raise_expectation(expected: int, max_tokens: int | None) -> int:
    """Raise by half (at least 1) an expectation that a sequence has reached and gone beyond.

    Never above `max_tokens`, so an unfinished sequence always owes something.
    """
    raised = expected + max(1, expected // 2)
    return raised if max_tokens is None else min(raised, max_tokens)


def split_expectation(total: int, sequences: int) -> list[int]:
    """Share a request's expected tokens among its sequences; the shares sum up to `total`.

    A total below the number of sequences is raised to it: each sequence owes at least 1.
    """
    share, rest = divmod(max(total, sequences), sequences)
    return [share + (i < rest) for i in range(sequences)]


@dataclass(slots=True)
class PromptEstimator:
    """Prompt tokens from bytes, with a ratio learned for one model."""

    _bytes_per_token: float = field(default=UNLEARNED_BYTES_PER_TOKEN)

    def learn(self, prompt_bytes: int, prompt_tokens: int) -> None:
        """Take in one true count that a replica reported."""
        if prompt_bytes > 0 and prompt_tokens > 0:
            ratio = prompt_bytes / prompt_tokens
            self._bytes_per_token += WEIGHT * (ratio - self._bytes_per_token)

    def expect(self, prompt_bytes: int) -> int:
        """Return the expected prompt tokens, at least 1."""
        return max(1, math.ceil(prompt_bytes / self._bytes_per_token))
