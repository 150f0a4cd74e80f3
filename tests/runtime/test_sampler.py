"""Draws follow their distribution and depend on nothing but logits, seed and position."""

import math
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from serving_runtime.request import SamplingParams
from serving_runtime.sampler import logprobs_of, sample, uniform
from serving_runtime.sequence import Sequence

VOCAB_SIZE = 12


def make_sequence(
    token_ids: tuple[int, ...] = (1,), prompt_len: int = 1, **fields: Any
) -> Sequence:
    return Sequence(
        request_id="a",
        token_ids=list(token_ids),
        prompt_len=prompt_len,
        sampling=SamplingParams(max_tokens=100, **fields),
        row=0,
    )


def draws(logits: list[float], count: int = 2000, **fields: Any) -> list[int]:
    """Draw with as many seeds, all in one batch."""
    rows = torch.tensor([logits] * count)
    return sample(rows, [make_sequence(seed=seed, **fields) for seed in range(count)])


def share(tokens: list[int], token_id: int) -> float:
    return tokens.count(token_id) / len(tokens)


def log(*probs: float) -> list[float]:
    return [math.log(p) for p in probs]


def test_temperature_zero_takes_the_most_likely() -> None:
    assert set(draws(log(0.3, 0.4, 0.3), temperature=0)) == {1}


def test_draws_follow_the_probabilities() -> None:
    tokens = draws(log(0.2, 0.5, 0.3))
    assert [share(tokens, i) for i in range(3)] == pytest.approx([0.2, 0.5, 0.3], abs=0.05)


def test_temperature_sharpens_and_flattens() -> None:
    assert share(draws(log(0.4, 0.6), temperature=0.25), 1) > 0.8
    assert share(draws(log(0.1, 0.9), temperature=2.0), 1) < 0.8


def test_a_tiny_temperature_takes_the_most_likely() -> None:
    assert set(draws([1e4, 2e4, -1e4], temperature=1e-300)) == {1}


@pytest.mark.parametrize("penalty", [1.0, 5e-324, 1e-300, 1e300])
@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-30, 1.0])
@pytest.mark.parametrize("bias", [-100.0, 100.0])
def test_extreme_parameters_draw_the_same_token_of_the_vocabulary_alone_and_in_a_batch(
    penalty: float, temperature: float, bias: float
) -> None:
    logits = torch.tensor([[0.0, -3.0, 2.0, 5.0], [1e4, -1e4, 0.0, 3e38]])
    extreme = [
        make_sequence(
            (0, 1, 2, 3),
            repetition_penalty=penalty,
            temperature=temperature,
            logit_bias=((0, bias), (3, bias)),
        )
        for _ in logits
    ]
    tokens = sample(logits, extreme)
    assert set(tokens) <= set(range(4))
    assert [sample(logits[i : i + 1], [extreme[i]])[0] for i in range(2)] == tokens


@pytest.mark.parametrize(
    ("penalty", "token"), [(1e-300, 2), (1e300, 0)], ids=["favours seen", "shuns seen"]
)
@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-30, 1.0])
def test_an_extreme_repetition_penalty_decides_alone(
    penalty: float, token: int, temperature: float
) -> None:
    sequence = make_sequence((1, 2), repetition_penalty=penalty, temperature=temperature)
    assert sample(torch.tensor([[100.0, -3.0, 2.0]]), [sequence]) == [token]


def test_logits_that_are_no_numbers_draw_a_token_of_the_vocabulary() -> None:
    assert 0 <= sample(torch.full((1, 4), torch.nan), [make_sequence()])[0] < 4


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"top_k": 1}, {1}),
        ({"top_k": 2}, {1, 2}),
        ({"top_k": 99}, {0, 1, 2, 3}),
        ({"top_p": 0.39}, {1}),
        ({"top_p": 0.41}, {1, 2}),
        ({"top_p": 1e-9}, {1}),
        ({"top_k": 3, "top_p": 0.8}, {1, 2, 3}),
        ({"top_k": 2, "top_p": 0.5}, {1}),
        ({"min_p": 0.7}, {1, 2}),
        ({"min_p": 1.0}, {1}),
    ],
    ids=str,
)
def test_cuts_keep_the_most_likely(fields: dict[str, Any], kept: set[int]) -> None:
    assert set(draws(log(0.1, 0.4, 0.3, 0.2), **fields)) == kept


def test_rows_with_different_cuts_do_not_mix() -> None:
    logits = torch.tensor([log(0.1, 0.4, 0.3, 0.2)] * 600)
    cuts: list[dict[str, Any]] = [{}, {"top_k": 1}, {"top_p": 0.5}]
    sequences = [make_sequence(seed=i, **cuts[i % 3]) for i in range(600)]
    tokens = sample(logits, sequences)
    assert [set(tokens[i::3]) for i in range(3)] == [{0, 1, 2, 3}, {1}, {1, 2}]


def test_no_token_before_min_tokens_is_an_ending_one() -> None:
    fields: dict[str, Any] = {
        "eos_token_ids": frozenset({0}),
        "stop_token_ids": frozenset({1}),
        "min_tokens": 2,
        "logit_bias": ((0, 100.0),),
    }
    logits = torch.tensor([log(0.5, 0.3, 0.2)])
    at = [make_sequence((9,) * (1 + drawn), temperature=0, **fields) for drawn in range(3)]
    assert [sample(logits, [sequence])[0] for sequence in at] == [2, 2, 0]


@pytest.mark.parametrize(
    ("fields", "token_ids", "expected"),
    [
        ({"presence_penalty": 2.0}, (5, 0), 1),
        ({"presence_penalty": 2.0}, (0, 5), 0),
        ({"frequency_penalty": 0.5}, (5, 0), 0),
        ({"frequency_penalty": 0.5}, (5, 0, 0, 0), 1),
        ({"repetition_penalty": 2.0}, (0, 5), 1),
        ({"repetition_penalty": 0.5}, (1, 5), 1),
        ({"logit_bias": ((2, 9.0),)}, (5,), 2),
        ({"logit_bias": ((0, -100.0),)}, (5,), 1),
    ],
    ids=str,
)
def test_penalties_and_biases_change_the_choice(
    fields: dict[str, Any], token_ids: tuple[int, ...], expected: int
) -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, -1.0, -1.0, -1.0]])
    assert sample(logits, [make_sequence(token_ids, temperature=0, **fields)]) == [expected]


def test_a_negative_logit_is_penalised_downwards() -> None:
    logits = torch.tensor([[-1.0, -1.5]])
    sequence = make_sequence((0,), temperature=0, repetition_penalty=2.0)
    assert sample(logits, [sequence]) == [1]


def test_sampling_leaves_the_logits_alone() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    sample(logits, [make_sequence(presence_penalty=1.0, logit_bias=((1, 5.0),), top_k=1)])
    assert logits.tolist() == [[1.0, 2.0, 3.0]]


samplings = st.fixed_dictionaries(
    {
        "seed": st.integers(-(2**63), 2**63 - 1),
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 2.0]),
        "top_k": st.integers(0, VOCAB_SIZE + 1),
        "top_p": st.floats(0.01, 1),
        "min_p": st.floats(0, 1),
        "presence_penalty": st.floats(-2, 2),
        "repetition_penalty": st.floats(0.1, 3),
    }
)
rows = st.lists(st.floats(-9, 9, width=32), min_size=VOCAB_SIZE, max_size=VOCAB_SIZE)


@given(st.lists(st.tuples(rows, samplings), min_size=1, max_size=6))
def test_a_draw_does_not_depend_on_the_rest_of_the_batch(
    batch: list[tuple[list[float], dict[str, Any]]],
) -> None:
    together = sample(
        torch.tensor([row for row, _ in batch]), [make_sequence(**fields) for _, fields in batch]
    )
    alone = [sample(torch.tensor([row]), [make_sequence(**fields)])[0] for row, fields in batch]
    assert together == alone


def test_a_seed_gives_the_same_draw_again_and_another_position_another() -> None:
    logits = torch.zeros(1, 10_000)
    first = [sample(logits, [make_sequence((1,) * n, seed=7)])[0] for n in range(1, 9)]
    second = [sample(logits, [make_sequence((1,) * n, seed=7)])[0] for n in range(1, 9)]
    assert first == second
    assert len(set(first)) > 6


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 1_000_000))
def test_the_random_number_is_in_the_unit_interval(seed: int, position: int) -> None:
    assert 0 <= uniform(seed, position) < 1


def test_random_numbers_of_neighbouring_seeds_and_positions_are_uniform() -> None:
    numbers = sorted(uniform(seed, position) for seed in range(50) for position in range(50))
    distance = max(abs(number - i / len(numbers)) for i, number in enumerate(numbers))
    # The Kolmogorov-Smirnov distance that one sample of this size in a thousand exceeds.
    assert distance < 1.95 / math.sqrt(len(numbers))


def test_logprobs_are_those_of_the_raw_logits_best_first() -> None:
    logits = torch.tensor([log(0.2, 0.5, 0.3), log(0.6, 0.3, 0.1)])
    first, second = logprobs_of(logits, [0, 1], [2, 0])
    assert first.logprob == pytest.approx(math.log(0.2))
    assert [token_id for token_id, _ in first.top] == [1, 2]
    assert [value for _, value in first.top] == pytest.approx(log(0.5, 0.3))
    assert (second.token_id, second.top) == (1, ())


def test_equally_likely_tokens_are_cut_in_the_order_of_their_ids() -> None:
    tied = [0.0] * 12
    narrow = make_sequence(seed=0, temperature=0.3, top_k=1)
    wide = make_sequence(seed=0, temperature=0.3, top_k=7)
    assert sample(torch.tensor([tied]), [narrow]) == [0]
    assert sample(torch.tensor([tied, tied]), [narrow, wide])[0] == 0
