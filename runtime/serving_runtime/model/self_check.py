"""Before it serves, a model is run both ways: paged in chunks, and by transformers alone.

The architectures that can be served are not a list of names; whatever comes out equal is served.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import torch

from serving_runtime.errors import InvalidModel
from serving_runtime.model.batch import Batch
from serving_runtime.model.paged import LayerCache, PagedAttention
from serving_runtime.model.served import ServedModel
from serving_runtime.request import SamplingParams
from serving_runtime.step import Chunk, NewSequence, Step

MAX_TOKENS: Final = 40
TOLERANCE: Final = {torch.float32: 1e-3}
TOLERANCE_16_BIT: Final = 0.1
REQUEST_ID: Final = "self-check"


def expected_logits(model: ServedModel, max_model_len: int) -> torch.Tensor:
    """Return transformers' own logits of a fixed prompt: float [num_tokens, vocab_size].

    Ask before anything of the model is rearranged.
    """
    return model.reference_logits(torch.tensor(_prompt(model, max_model_len))).float()


def self_check(
    model: ServedModel, caches: Sequence[LayerCache], batch: Batch, expected: torch.Tensor
) -> None:
    """Compare the logits of the prompt in two chunks and a single token with the expected ones.

    The median over the tokens counts: in 16 bits an expert chosen differently upsets a token.
    `batch` is used up by this.

    Raises:
        InvalidModel: they differ by more than the data type explains, or are no numbers.
    """
    token_ids = _prompt(model, batch.max_model_len)
    rows = [_run(model, caches, batch, step) for step in _steps(token_ids, batch.block_size)]
    difference = (torch.cat(rows).float() - expected).abs().amax(dim=-1)
    error = (difference / expected.abs().amax(dim=-1)).median().item()
    tolerance = TOLERANCE.get(model.dtype, TOLERANCE_16_BIT)
    if not error <= tolerance:
        raise InvalidModel(
            f"{model.name}: logits of paged attention differ from transformers' own by {error:.2g} "
            f"(at most {tolerance:g} is rounding); it cannot be served"
        )


def _prompt(model: ServedModel, max_model_len: int) -> list[int]:
    return [(7 * i + 3) % model.vocab_size for i in range(min(MAX_TOKENS, max_model_len))]


def _run(
    model: ServedModel, caches: Sequence[LayerCache], batch: Batch, step: Step
) -> torch.Tensor:
    inputs = batch.take(step)
    every_token = torch.arange(len(inputs.input_ids), device=inputs.input_ids.device)
    attention = PagedAttention(caches, inputs.layout)
    return model.logits(inputs.input_ids, inputs.positions, every_token, attention)


def _steps(token_ids: list[int], block_size: int) -> Iterator[Step]:
    """Cut the tokens into two chunks and a last token; later blocks have lower numbers."""
    num_tokens = len(token_ids)
    blocks = tuple(reversed(range(-(-num_tokens // block_size))))
    admitted = NewSequence(
        request_id=REQUEST_ID,
        token_ids=tuple(token_ids),
        prompt_len=num_tokens,
        sampling=SamplingParams(max_tokens=1),
    )
    bounds = sorted({0, num_tokens // 2, num_tokens - 1, num_tokens})
    for start, end in pairwise(bounds):
        chunk = Chunk(
            request_id=REQUEST_ID,
            start=start,
            num_tokens=end - start,
            new_block_ids=blocks if start == 0 else (),
            samples=end == num_tokens,
        )
        first = (admitted,) if start == 0 else ()
        yield Step(step_id=start, forgotten=(), admitted=first, chunks=(chunk,))
