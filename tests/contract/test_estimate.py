from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_contract.estimate import (
    MARGIN,
    MIN_ANSWERS,
    UNLEARNED_TOKENS,
    OutputEstimator,
    PromptEstimator,
    raise_expectation,
    split_expectation,
)


def test_nothing_is_learned_before_twenty_answers() -> None:
    estimator = OutputEstimator()
    for _ in range(MIN_ANSWERS - 1):
        estimator.learn(10)
    assert estimator.expect(None) == UNLEARNED_TOKENS
    estimator.learn(10)
    assert estimator.expect(None) == round(10 * MARGIN)


@given(answers=st.lists(st.integers(0, 10_000), max_size=60), limit=st.integers(1, 500))
def test_expectation_is_at_least_one_and_never_above_max_tokens(
    answers: list[int], limit: int
) -> None:
    estimator = OutputEstimator()
    for tokens in answers:
        estimator.learn(tokens)
    assert 1 <= estimator.expect(limit) <= limit


def test_recent_answers_outweigh_old_ones() -> None:
    estimator = OutputEstimator()
    for tokens in [1000] * 100 + [10] * 100:
        estimator.learn(tokens)
    assert estimator.expect(None) < 50


@pytest.mark.parametrize(
    ("expected", "limit", "raised"),
    [(1, None, 2), (2, None, 3), (10, None, 15), (10, 12, 12), (256, 1000, 384)],
)
def test_reached_expectation_is_raised_by_half(
    expected: int, limit: int | None, raised: int
) -> None:
    assert raise_expectation(expected, limit) == raised


@given(total=st.integers(0, 10_000), sequences=st.integers(1, 200))
def test_shares_sum_up_and_differ_by_at_most_one(total: int, sequences: int) -> None:
    shares = split_expectation(total, sequences)
    assert sum(shares) == max(total, sequences)
    assert len(shares) == sequences
    assert max(shares) - min(shares) <= 1
    assert min(shares) >= 1


def test_bytes_per_token_are_learned_from_true_counts() -> None:
    estimator = PromptEstimator()
    assert estimator.expect(400) == 100
    for _ in range(200):
        estimator.learn(prompt_bytes=200, prompt_tokens=100)
    assert estimator.expect(400) == pytest.approx(200, abs=2)


def test_empty_prompts_teach_nothing() -> None:
    estimator = PromptEstimator()
    estimator.learn(prompt_bytes=0, prompt_tokens=5)
    estimator.learn(prompt_bytes=5, prompt_tokens=0)
    assert estimator.expect(400) == 100
