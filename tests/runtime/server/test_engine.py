"""The engine over an executor that repeats the prompt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from serving_runtime.config import EngineConfig
from serving_runtime.engine import MAX_STEP_S, Engine
from serving_runtime.errors import EngineStopped
from serving_runtime.generation import Output, SequenceSpec, Submission, merge
from serving_runtime.load import Load, LoadBoard
from serving_runtime.metrics import ReplicaMetrics
from serving_runtime.request import FinishReason, SamplingParams
from serving_runtime.tokenizer import Tokenizer

EOS = 2


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """An engine with everything around it."""

    def __init__(self, executor: Any, tokenizer: Tokenizer) -> None:
        self.executor = executor
        self.tokenizer = tokenizer
        self.clock = Clock()
        self.metrics = ReplicaMetrics()
        self.board = LoadBoard(epoch="e", measure=Load, clock=self.clock)
        self.engine: Engine

    def spec(self, text: str, *, stop: tuple[str, ...] = (), **sampling: int) -> SequenceSpec:
        limits = {"max_tokens": 100} | sampling
        params = SamplingParams(eos_token_ids=frozenset({EOS}), **limits)  # type: ignore[arg-type]
        token_ids = self.tokenizer.encode(text, add_special_tokens=False)
        return SequenceSpec(prompt_token_ids=token_ids, sampling=params, stop_strings=stop)

    async def answer(self, *specs: SequenceSpec, reservation: str | None = None) -> list[Output]:
        submission = Submission(sequences=specs, prompt_tokens=1, reservation=reservation)
        merged: dict[int, Output] = {}
        async with self.engine.submit(submission) as generation:
            async for output in generation.outputs():
                before = merged.get(output.index)
                merged[output.index] = merge(before, output) if before else output
        return [merged[i] for i in sorted(merged)]

    def metric(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"ascend_serving_{name}") or 0.0


NewBench = Callable[..., AbstractAsyncContextManager[Bench]]


@pytest.fixture
def new_bench(tiny_model: Path, echo_executor: Callable[..., Any]) -> NewBench:
    @asynccontextmanager
    async def make(**fields: int) -> AsyncIterator[Bench]:
        bench = Bench(echo_executor(**fields), Tokenizer(tiny_model))
        bench.engine = Engine(
            config=EngineConfig(model=tiny_model, served_name="echo"),
            facts=await bench.executor.start(),
            executor=bench.executor,
            tokenizer=bench.tokenizer,
            metrics=bench.metrics,
            board=bench.board,
            clock=bench.clock,
        )
        await bench.engine.warm_up()
        loop = asyncio.create_task(bench.engine.run())
        yield bench
        loop.cancel()
        await asyncio.wait([loop])

    return make


async def test_an_answer_is_its_text_without_the_eos_token(new_bench: NewBench) -> None:
    async with new_bench() as bench:
        (output,) = await bench.answer(bench.spec("hello 😀 world"))
    assert output.text == "hello 😀 world"
    assert output.token_ids[-1] == EOS
    assert output.finish_reason is FinishReason.STOP
    assert output.stop_reason is None


async def test_a_stop_string_across_tokens_ends_the_text_before_it(new_bench: NewBench) -> None:
    async with new_bench() as bench:
        (output,) = await bench.answer(bench.spec("hello there world", stop=("e w",)))
        assert bench.engine.load().running == 0
    assert output.text == "hello ther"
    assert output.stop_reason == "e w"


async def test_no_stop_string_is_looked_for_before_min_tokens(new_bench: NewBench) -> None:
    async with new_bench() as bench:
        (output,) = await bench.answer(bench.spec("xyxyxy", stop=("y",), min_tokens=4))
    assert output.text == "xyxyx"


async def test_what_was_held_back_for_a_stop_string_comes_at_the_end(new_bench: NewBench) -> None:
    async with new_bench() as bench:
        (output,) = await bench.answer(bench.spec("abcdef", stop=("efg",)))
    assert output.text == "abcdef"


async def test_a_character_that_the_limit_cuts_is_not_shown(new_bench: NewBench) -> None:
    async with new_bench() as bench:
        (output,) = await bench.answer(bench.spec("a😀", max_tokens=3))
    assert output.text == "a"
    assert output.finish_reason is FinishReason.LENGTH


async def test_a_stop_token_is_the_stop_reason_and_no_text(new_bench: NewBench) -> None:
    async with new_bench() as bench:
        (stop_token,) = bench.tokenizer.encode("z", add_special_tokens=False)
        spec = bench.spec("xyz")
        params = SamplingParams(max_tokens=9, stop_token_ids=frozenset({stop_token}))
        stopped = SequenceSpec(prompt_token_ids=spec.prompt_token_ids, sampling=params)
        (output,) = await bench.answer(stopped)
    assert (output.text, output.stop_reason) == ("xy", stop_token)


async def test_leaving_a_generation_frees_its_blocks(new_bench: NewBench) -> None:
    async with new_bench() as bench:
        submission = Submission(sequences=(bench.spec("a" * 50),) * 3, prompt_tokens=1)
        async with bench.engine.submit(submission) as generation:
            await anext(generation.outputs())
            assert bench.engine.load().running == 3
            bench.executor.may_step.clear()
        assert bench.engine.load().running == 0
        assert bench.engine.load().pending_output_tokens == 0
        bench.executor.may_step.set()
        await bench.answer(bench.spec("b"))
        assert bench.engine.load().kv_blocks_used == 0


async def test_a_reader_that_does_not_read_gets_everything_in_one_piece(
    new_bench: NewBench,
) -> None:
    async with new_bench() as bench:
        submission = Submission(sequences=(bench.spec("slow reader"),), prompt_tokens=1)
        async with bench.engine.submit(submission) as generation:
            await bench.answer(bench.spec("another, longer answer meanwhile"))
            outputs = [output async for output in generation.outputs()]
    assert [output.text for output in outputs] == ["slow reader"]


async def test_a_reservation_is_accepted_and_finished_once(new_bench: NewBench) -> None:
    async with new_bench() as bench:
        specs = (bench.spec("ab"), bench.spec("abcdef"))
        submission = Submission(sequences=specs, prompt_tokens=1, reservation="r")
        async with bench.engine.submit(submission) as generation:
            assert bench.board.whole().accepted == ("r",)
            async for _ in generation.outputs():
                pass
            assert bench.board.whole().accepted == ()
        assert bench.board.whole().finished == ("r",)


async def test_expected_tokens_of_the_router_are_what_is_pending(new_bench: NewBench) -> None:
    async with new_bench() as bench:
        bench.executor.may_step.clear()
        specs = (bench.spec("ab"),) * 3
        submission = Submission(sequences=specs, prompt_tokens=2, expected_tokens=31)
        async with bench.engine.submit(submission):
            assert bench.engine.load().pending_output_tokens == 31
            assert bench.engine.load().pending_prompt_tokens == 6


async def test_a_dead_worker_ends_every_generation(new_bench: NewBench) -> None:
    async with new_bench() as bench:
        submission = Submission(sequences=(bench.spec("abc"),), prompt_tokens=1)
        async with bench.engine.submit(submission) as generation:
            bench.executor.failure = "the worker was killed by SIGKILL"
            with pytest.raises(EngineStopped, match="SIGKILL"):
                async for _ in generation.outputs():
                    pass
        assert not bench.engine.is_healthy
        assert bench.engine.load().running == 0
        with pytest.raises(EngineStopped, match="SIGKILL"):
            bench.engine.submit(submission)


async def test_a_hung_step_is_unhealthy_until_it_ends(new_bench: NewBench) -> None:
    async with new_bench() as bench:
        bench.executor.may_step.clear()
        bench.executor.stepping.clear()
        answer = asyncio.create_task(bench.answer(bench.spec("abc")))
        await bench.executor.stepping.wait()
        health = [bench.engine.is_healthy]
        bench.clock.now += MAX_STEP_S + 1
        health.append(bench.engine.is_healthy)
        bench.executor.may_step.set()
        await answer
        health.append(bench.engine.is_healthy)
    assert health == [True, False, True]


async def test_the_warm_up_is_in_no_metric_and_no_load(new_bench: NewBench) -> None:
    async with new_bench() as bench:
        assert bench.executor.steps == 1
        assert bench.engine.load() == Load(kv_blocks_total=bench.executor.num_blocks)
        assert bench.metric("generation_tokens_total") == 0


async def test_metrics_count_given_up_tokens_too(new_bench: NewBench) -> None:
    async with new_bench() as bench:
        submission = Submission(sequences=(bench.spec("abcdef"),), prompt_tokens=6)
        async with bench.engine.submit(submission) as generation:
            await anext(generation.outputs())
        await bench.answer(bench.spec("ab"))
        assert bench.metric("prompt_tokens_total") == 7
        assert bench.metric("generation_tokens_total") >= 4
        assert bench.metric("e2e_request_latency_seconds_count") == 1
        assert bench.metric("time_to_first_token_seconds_count") == 2
