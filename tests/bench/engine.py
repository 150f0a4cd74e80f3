"""Decode steps of the engine against `transformers` `generate`: same weights, dtype and threads.

A Qwen3 shape of half a billion random weights. The contenders take turns; a step's time is what
passes between two tokens, and the medians of one round are divided by each other.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList

from serving_runtime.config import EngineConfig
from serving_runtime.engine import Engine
from serving_runtime.executor import ProcessExecutor
from serving_runtime.generation import SequenceSpec, Submission
from serving_runtime.load import Load, LoadBoard
from serving_runtime.metrics import ReplicaMetrics
from serving_runtime.request import SamplingParams
from serving_runtime.step import ModelFacts

PROMPT_TOKENS = 128
OUTPUT_TOKENS = 48
ROUNDS = 3
BARS = {1: 1.0, 8: 1.4, 32: None}
SHAPE = Qwen3Config(
    vocab_size=32_000,
    hidden_size=1024,
    intermediate_size=3072,
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=2048,
    tie_word_embeddings=False,
    eos_token_id=None,
    dtype="float32",
)


def run() -> None:
    """Print the ratio at each batch size."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        _write_model(path)
        asyncio.run(_compare(path))


def _write_model(path: Path) -> None:
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(SHAPE)
    model.bfloat16().save_pretrained(path)


async def _compare(path: Path) -> None:
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    config = EngineConfig(model=path, served_name="bench", max_model_len=512, threads=threads)
    executor = ProcessExecutor(config)
    try:
        facts = await executor.start()
        phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in facts.phases.items())
        print(f"dtype {facts.dtype}, {threads} threads; start: {phases}", flush=True)
        dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[facts.dtype]
        model = Qwen3ForCausalLM.from_pretrained(path, dtype=dtype)
        engine = _engine(config, facts, executor)
        running = asyncio.create_task(engine.run())
        for batch in BARS:
            await _compare_batch(batch, model, engine)
        running.cancel()
        await asyncio.wait([running])
    finally:
        await executor.stop()


async def _compare_batch(batch: int, model: PreTrainedModel, engine: Engine) -> None:
    prompts = torch.randint(0, SHAPE.vocab_size, (batch, PROMPT_TOKENS)).tolist()
    ours, theirs, ratios, prefills = [], [], [], []
    for _ in range(ROUNDS):
        our_prefill, our_step = await _time_engine(engine, prompts)
        their_prefill, their_step = _time_transformers(model, prompts)
        ours.append(our_step)
        theirs.append(their_step)
        ratios.append(their_step / our_step)
        prefills.append(their_prefill / our_prefill)
    bar = f"bar {BARS[batch]:.1f}x" if BARS[batch] else "no bar"
    print(
        f"batch {batch:>2}: decode step {statistics.median(ours) * 1e3:7.1f} ms, transformers "
        f"{statistics.median(theirs) * 1e3:7.1f} ms, ratio {statistics.median(ratios):.2f}x "
        f"({min(ratios):.2f}..{max(ratios):.2f}; {bar}); "
        f"prefill {statistics.median(prefills):.2f}x",
        flush=True,
    )


async def _time_engine(engine: Engine, prompts: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Return seconds to the first token of all and the median decode step."""
    sampling = SamplingParams(max_tokens=OUTPUT_TOKENS, temperature=0.0)
    specs = tuple(
        SequenceSpec(prompt_token_ids=tuple(prompt), sampling=sampling) for prompt in prompts
    )
    begun = time.perf_counter()
    times: list[float] = []
    async with engine.submit(Submission(sequences=specs, prompt_tokens=1)) as generation:
        async for output in generation.outputs():
            if output.index == len(prompts) - 1:
                times.append(time.perf_counter())
    return times[0] - begun, _median_gap(times)


class _Clock(LogitsProcessor):
    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.times.append(time.perf_counter())
        return scores


def _time_transformers(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]]
) -> tuple[float, float]:
    clock = _Clock()
    ids = torch.tensor(prompts)
    begun = time.perf_counter()
    model.generate(  # type: ignore[operator]
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=OUTPUT_TOKENS,
        min_new_tokens=OUTPUT_TOKENS,
        do_sample=False,
        pad_token_id=0,
        logits_processor=LogitsProcessorList([clock]),
    )
    return clock.times[0] - begun, _median_gap(clock.times)


def _median_gap(times: Sequence[float]) -> float:
    return statistics.median(b - a for a, b in itertools.pairwise(times))


class _NoText:
    """Text is not measured here: every token is an empty string."""

    def detokenizer(self, prompt_token_ids: object, *, skip_special_tokens: bool) -> _NoText:
        return self

    def push(self, token_id: int) -> str:
        return ""


def _engine(config: EngineConfig, facts: ModelFacts, executor: ProcessExecutor) -> Engine:
    return Engine(
        config=config,
        facts=facts,
        executor=executor,
        tokenizer=_NoText(),
        metrics=ReplicaMetrics(),
        board=LoadBoard(epoch="bench", measure=Load, clock=time.monotonic),
        clock=time.monotonic,
    )
