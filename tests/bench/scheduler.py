"""Scheduling and input preparation of one step at 32 decoding sequences; the bar is 0.5 ms."""

from __future__ import annotations

import statistics
import time

import torch

from serving_runtime.model.batch import Batch
from serving_runtime.request import Request, SamplingParams
from serving_runtime.scheduler import Scheduler
from serving_runtime.step import StepResult

SEQUENCES = 32
PROMPT_TOKENS = 128
STEPS = 300
BLOCK_SIZE = 16
MAX_MODEL_LEN = 1024


def run() -> None:
    """Print the medians of both parts."""
    scheduler = Scheduler(
        num_blocks=SEQUENCES * MAX_MODEL_LEN // BLOCK_SIZE,
        block_size=BLOCK_SIZE,
        max_num_seqs=SEQUENCES,
        max_num_batched_tokens=8192,
    )
    batch = Batch(
        max_num_seqs=SEQUENCES,
        max_model_len=MAX_MODEL_LEN,
        block_size=BLOCK_SIZE,
        device=torch.device("cpu"),
    )
    for number in range(SEQUENCES):
        scheduler.add(_request(number))
    scheduling, preparing = [], []
    for _ in range(STEPS):
        begun = time.perf_counter()
        step = scheduler.schedule()
        assert step is not None
        scheduled = time.perf_counter()
        inputs = batch.take(step)
        for sequence in inputs.drawing:
            sequence.token_ids.append(1)
        prepared = time.perf_counter()
        token_ids = (1,) * len(inputs.drawing)
        scheduler.update(step, StepResult(step_id=step.step_id, token_ids=token_ids))
        updated = time.perf_counter()
        scheduling.append(scheduled - begun + updated - prepared)
        preparing.append(prepared - scheduled)
    both = [a + b for a, b in zip(scheduling, preparing, strict=True)]
    for name, seconds in (("schedule + update", scheduling), ("input preparation", preparing)):
        print(f"{name:<24} {statistics.median(seconds) * 1e3:6.3f} ms")
    print(f"{'both, at 32 sequences':<24} {statistics.median(both) * 1e3:6.3f} ms (bar: 0.5 ms)")


def _request(number: int) -> Request:
    return Request(
        request_id=str(number),
        prompt_token_ids=tuple(range(PROMPT_TOKENS)),
        sampling=SamplingParams(max_tokens=MAX_MODEL_LEN - PROMPT_TOKENS, temperature=0.0),
        expected_tokens=256,
    )
