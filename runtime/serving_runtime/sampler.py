"""Draws the next token of each sequence from its row of logits.

The draw depends on nothing but the sequence's own logits, seed and position: the random number is
a hash of seed and position (a counter-based generator), so it does not matter what else runs.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from typing import Final

import torch

from serving_runtime.request import SamplingParams, TokenLogprob
from serving_runtime.sequence import Sequence

MASK_64: Final = (1 << 64) - 1
GOLDEN_GAMMA: Final = 0x9E3779B97F4A7C15
MAX_LOGIT: Final = torch.finfo(torch.float32).max


def sample(logits: torch.Tensor, sequences: Rows[Sequence]) -> list[int]:
    """Draw one token for each sequence.

    Args:
        logits: float [num_sequences, vocab_size], the model's own; not changed.
        sequences: in the order of the rows.
    """
    shaped = _shape(logits, sequences)
    token_ids: list[int] = shaped.argmax(dim=-1).tolist()
    rows = [i for i, sequence in enumerate(sequences) if sequence.sampling.temperature > 0]
    if rows:
        drawn = _draw(shaped[rows], [sequences[row] for row in rows])
        for row, token_id in zip(rows, drawn, strict=True):
            token_ids[row] = token_id
    return token_ids


def logprobs_of(
    logits: torch.Tensor, token_ids: Rows[int], num_top: Rows[int]
) -> list[TokenLogprob]:
    """Return the log probability of one token a row, and of the row's most likely ones.

    Args:
        logits: float [num_rows, vocab_size], the model's own.
        token_ids: the token of each row.
        num_top: how many of the most likely tokens to list, for each row.
    """
    logprobs = logits.float().log_softmax(dim=-1)
    chosen = logprobs.gather(1, torch.tensor(token_ids).unsqueeze(1)).squeeze(1).tolist()
    top = logprobs.topk(max(num_top), dim=-1)
    values, ids = top.values.tolist(), top.indices.tolist()
    return [
        TokenLogprob(
            token_id=token_ids[row],
            logprob=chosen[row],
            top=tuple(zip(ids[row][:count], values[row][:count], strict=True)),
        )
        for row, count in enumerate(num_top)
    ]


def uniform(seed: int, position: int) -> float:
    """Return a number in [0, 1) that depends on seed and position alone.

    SplitMix64 (Steele, Lea, Flood 2014) used as a hash of the pair. 52 bits, so that the number
    times any double stays below that double.
    """
    return (_mix(_mix(seed & MASK_64) + position * GOLDEN_GAMMA) >> 12) * 2.0**-52


def _mix(value: int) -> int:
    value = (value + GOLDEN_GAMMA) & MASK_64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK_64
    return value ^ (value >> 31)


def _shape(logits: torch.Tensor, sequences: Rows[Sequence]) -> torch.Tensor:
    """Apply penalties, then biases, then bans: a ban holds whatever the others say.

    Without bans the logits are finite, however extreme the penalties.
    """
    if not any(_is_shaped(sequence) for sequence in sequences):
        return logits
    shaped = logits.float().clone()
    for row, sequence in zip(shaped, sequences, strict=True):
        if _is_shaped(sequence):
            _penalise(row, sequence)
            _bias(row, sequence.sampling)
            row.clamp_(-MAX_LOGIT, MAX_LOGIT)
            if sequence.num_drawn < sequence.sampling.min_tokens:
                row[_ending(sequence.sampling)] = -torch.inf
    return shaped


def _is_shaped(sequence: Sequence) -> bool:
    sampling = sequence.sampling
    return bool(
        _has_penalty(sampling)
        or sampling.logit_bias
        or (sequence.num_drawn < sampling.min_tokens and _ending(sampling))
    )


def _has_penalty(sampling: SamplingParams) -> bool:
    return (
        sampling.presence_penalty != 0
        or sampling.frequency_penalty != 0
        or sampling.repetition_penalty != 1
    )


def _ending(sampling: SamplingParams) -> list[int]:
    return [*sampling.eos_token_ids, *sampling.stop_token_ids]


def _penalise(row: torch.Tensor, sequence: Sequence) -> None:
    """Repetition looks at prompt and output (Keskar 2019), the other two at the output (OpenAI)."""
    sampling = sequence.sampling
    if not _has_penalty(sampling):
        return
    is_seen = _count(sequence.token_ids, row) > 0
    penalty = sampling.repetition_penalty
    # In float32 an extreme penalty would itself be zero or infinite, and zero times that NaN.
    exact = row.double()
    penalised = torch.where(row > 0, exact / penalty, exact * penalty)
    row.copy_(torch.where(is_seen, penalised, exact))
    drawn = _count(sequence.token_ids[sequence.prompt_len :], row)
    row -= sampling.presence_penalty * (drawn > 0) + sampling.frequency_penalty * drawn


def _count(token_ids: list[int], row: torch.Tensor) -> torch.Tensor:
    """Return how often each token of the vocabulary occurs."""
    counted = torch.tensor(token_ids, dtype=torch.int64, device=row.device)
    return torch.bincount(counted, minlength=len(row))


def _bias(row: torch.Tensor, sampling: SamplingParams) -> None:
    for token_id, bias in sampling.logit_bias:
        row[token_id] += bias


def _draw(logits: torch.Tensor, sequences: Rows[Sequence]) -> list[int]:
    """Draw by inverting the distribution function, tokens in the order of their ids.

    That order, unlike one by probability, is not upset by the last bit of a logit.
    """
    temperature = torch.tensor([[s.sampling.temperature] for s in sequences], dtype=torch.float64)
    # The greatest is taken off first: a tiny temperature must not overflow.
    scaled = (logits.double() - logits.amax(dim=-1, keepdim=True)) / temperature
    probs = _cut(scaled.softmax(dim=-1), [sequence.sampling for sequence in sequences])
    cumulative = probs.cumsum(dim=-1)
    at = [[uniform(sequence.sampling.seed, sequence.num_drawn)] for sequence in sequences]
    target = torch.tensor(at, dtype=torch.float64) * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, target, right=True).squeeze(1)
    # Only logits that are no numbers get past the last token: the step goes on for the others.
    token_ids: list[int] = found.clamp_(max=logits.shape[-1] - 1).tolist()
    return token_ids


def _cut(probs: torch.Tensor, samplings: Rows[SamplingParams]) -> torch.Tensor:
    """Set to zero what min-p, top-k and top-p cut away, in this order."""
    min_p = torch.tensor([[sampling.min_p] for sampling in samplings], dtype=probs.dtype)
    if bool((min_p > 0).any()):
        probs = probs.masked_fill(probs < min_p * probs.amax(dim=-1, keepdim=True), 0)
    by_count = [row for row, sampling in enumerate(samplings) if sampling.top_k > 0]
    by_mass = [row for row, s in enumerate(samplings) if s.top_k == 0 and s.top_p < 1]
    for rows in (by_count, by_mass):
        if rows:
            probs[rows] = _cut_tail(probs[rows], [samplings[row] for row in rows])
    return probs


def _cut_tail(probs: torch.Tensor, samplings: Rows[SamplingParams]) -> torch.Tensor:
    """Keep the `top_k` most likely tokens, and of those the fewest that hold `top_p` of the mass.

    Of equally likely tokens the lower ids are kept: which ones `topk` names depends on how many it
    is asked for, hence on the batch. Only as many as the largest `top_k` are sorted; a row without
    one needs them all.
    """
    vocab_size = probs.shape[-1]
    counts = torch.tensor([[min(s.top_k or vocab_size, vocab_size)] for s in samplings])
    top = probs.topk(int(counts.max()), dim=-1).values
    rank = torch.arange(top.shape[-1])
    mass = top.masked_fill(rank >= counts, 0).cumsum(dim=-1)
    top_p = torch.tensor([[sampling.top_p] for sampling in samplings], dtype=probs.dtype)
    is_kept = (mass - top < top_p * mass[:, -1:]) & (rank < counts)
    num_kept = is_kept.sum(dim=-1, keepdim=True).clamp(min=1)
    least = top.gather(1, num_kept - 1)
    is_more, is_least = probs > least, probs == least
    room = num_kept - is_more.sum(dim=-1, keepdim=True)
    return probs.masked_fill(~(is_more | (is_least & (is_least.cumsum(dim=-1) <= room))), 0)
