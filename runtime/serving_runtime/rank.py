"""One rank: a model and its KV cache, set up once, then running steps."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch

from serving_runtime.config import EngineConfig
from serving_runtime.device import Device, open_device
from serving_runtime.errors import EngineStopped, Refused
from serving_runtime.model.batch import Batch, Scored, StepInputs
from serving_runtime.model.load import load_model, max_model_len, read_model_config
from serving_runtime.model.paged import LayerCache, PagedAttention, allocate, bytes_per_token
from serving_runtime.model.self_check import expected_logits, self_check
from serving_runtime.model.served import ServedModel
from serving_runtime.parallel import open_group
from serving_runtime.request import TokenLogprob
from serving_runtime.sampler import logprobs_of, sample
from serving_runtime.step import ModelFacts, Step, StepResult

logger = logging.getLogger(__name__)

GIB: Final = 1 << 30


class Rank:
    """A model that is ready for steps."""

    def __init__(
        self, device: Device, model: ServedModel, caches: Sequence[LayerCache], batch: Batch
    ) -> None:
        self._device = device
        self._model = model
        self._caches = caches
        self._batch = batch

    def execute(self, step: Step) -> StepResult:
        """Run one forward pass and draw the next tokens.

        Raises:
            EngineStopped: it failed, and no later step can be trusted.
        """
        try:
            return self._run(step)
        except Exception as error:
            fault = self._device.describe_fault(error)
            raise EngineStopped(f"step {step.step_id} failed: {fault}") from error

    @torch.inference_mode()
    def _run(self, step: Step) -> StepResult:
        inputs = self._batch.take(step)
        attention = PagedAttention(self._caches, inputs.layout)
        logits = self._model.logits(
            inputs.input_ids, inputs.positions, inputs.logit_tokens, attention
        )
        for scored in inputs.scored:
            _score_prompt(logits, scored)
        return _draw(step.step_id, logits, inputs)


def start_rank(config: EngineConfig, phases: dict[str, float]) -> tuple[Rank, ModelFacts]:
    """Load the model, size and allocate its KV cache, and check that both work together.

    Args:
        config: checked before.
        phases: seconds of each phase; added to.

    Raises:
        Refused: the model cannot be served, or a sequence of full length does not fit.
    """
    group = open_group(config.tensor_parallel_size)
    device = open_device(config.device)
    torch.set_num_threads(config.threads or torch.get_num_threads())
    with _timed(phases, "load"):
        model, model_len = _load(config, device)
        expected = expected_logits(model, model_len)
        model.pack()
    with _timed(phases, "profile"):
        caches = _allocate_caches(config, device, model, model_len)
    with _timed(phases, "self_check"):
        self_check(model, caches, _batch(config, model_len, device), expected)
    logger.info("rank %s of %s serves %s in %s", group.rank, group.size, model.name, model.dtype)
    # What was loaded stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    facts = ModelFacts(
        num_blocks=len(caches[0].keys),
        block_size=config.block_size,
        max_model_len=model_len,
        vocab_size=model.vocab_size,
        dtype=str(model.dtype).removeprefix("torch."),
        device=device.name,
        phases=phases,
    )
    return Rank(device, model, caches, _batch(config, model_len, device)), facts


def _load(config: EngineConfig, device: Device) -> tuple[ServedModel, int]:
    """Return the model and the longest sequence that it is to serve."""
    model_config = read_model_config(config.model)
    model_len = max_model_len(model_config, config.max_model_len)
    dtype = device.choose_dtype(config.dtype)
    module = load_model(config.model, model_config, dtype=dtype, device=device.torch_device)
    return ServedModel(module), model_len


def _allocate_caches(
    config: EngineConfig, device: Device, model: ServedModel, max_model_len: int
) -> tuple[LayerCache, ...]:
    layers = model.probe()
    token_bytes = bytes_per_token(layers, model.dtype)
    return allocate(
        layers,
        num_blocks=num_blocks(config, device.free_bytes(), max_model_len, token_bytes),
        block_size=config.block_size,
        dtype=model.dtype,
        device=device.torch_device,
    )


def num_blocks(config: EngineConfig, free_bytes: int, max_model_len: int, token_bytes: int) -> int:
    """Size the KV cache: what memory gives, but not more than all sequences together can use.

    Raises:
        Refused: less than one sequence of full length.
    """
    per_sequence = -(-max_model_len // config.block_size)
    budget = int(free_bytes * config.device_memory_fraction)
    blocks = config.kv_blocks
    if blocks is None:
        affordable = budget // (token_bytes * config.block_size)
        blocks = min(affordable, per_sequence * config.max_num_seqs)
    if blocks < per_sequence:
        raise Refused(
            f"the KV cache has room for {blocks * config.block_size} tokens "
            f"({budget / GIB:.1f} GiB at --device-memory-fraction "
            f"{config.device_memory_fraction:g}), but one sequence may have {max_model_len}; "
            f"set --max-model-len to at most {blocks * config.block_size}"
        )
    return blocks


def _batch(config: EngineConfig, max_model_len: int, device: Device) -> Batch:
    return Batch(
        max_num_seqs=config.max_num_seqs,
        max_model_len=max_model_len,
        block_size=config.block_size,
        device=device.torch_device,
    )


def _score_prompt(logits: torch.Tensor, scored: Scored) -> None:
    sequence, count = scored.sequence, len(scored.token_ids)
    num_top = sequence.sampling.prompt_logprobs
    assert num_top is not None, "only these are scored"
    if count:
        rows = logits[scored.first_row : scored.first_row + count]
        sequence.scored += logprobs_of(rows, scored.token_ids, [num_top] * count)


def _draw(step_id: int, logits: torch.Tensor, inputs: StepInputs) -> StepResult:
    if not inputs.drawing:
        return StepResult(step_id=step_id, token_ids=())
    logits = logits[inputs.drawing_rows]
    token_ids = sample(logits, inputs.drawing)
    result = StepResult(
        step_id=step_id,
        token_ids=tuple(token_ids),
        logprobs=_logprobs(logits, token_ids, inputs),
        prompt_logprobs={
            sequence.request_id: tuple(sequence.scored)
            for sequence in inputs.drawing
            if sequence.wants_prompt_scored
        },
    )
    for sequence, token_id in zip(inputs.drawing, token_ids, strict=True):
        sequence.token_ids.append(token_id)
    return result


def _logprobs(
    logits: torch.Tensor, token_ids: list[int], inputs: StepInputs
) -> dict[str, TokenLogprob]:
    wanted = {
        row: count
        for row, sequence in enumerate(inputs.drawing)
        if (count := sequence.sampling.logprobs) is not None
    }
    if not wanted:
        return {}
    rows = list(wanted)
    drawn = logprobs_of(logits[rows], [token_ids[row] for row in rows], list(wanted.values()))
    return {inputs.drawing[row].request_id: found for row, found in zip(rows, drawn, strict=True)}


@contextmanager
def _timed(phases: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    phases[phase] = time.perf_counter() - start
