"""The engine of one replica, as asyncio code sees it: submit a request, read its outputs.

One task runs the steps. It shares the scheduler with `submit` and aborts, which run in the same
event loop while it waits for the executor; the forward pass itself is in another process.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, Protocol

from serving_contract.estimate import OutputEstimator, split_expectation
from serving_runtime.config import EngineConfig
from serving_runtime.detokenizer import Detokenizer
from serving_runtime.errors import EngineStopped
from serving_runtime.executor import Executor
from serving_runtime.generation import Generation, LiveSequence, SequenceSpec, Submission
from serving_runtime.load import Load, LoadBoard, RecentRate
from serving_runtime.metrics import ReplicaMetrics
from serving_runtime.request import FinishReason, Request, SamplingParams
from serving_runtime.scheduler import Scheduler, TokenEvent
from serving_runtime.step import ModelFacts

MAX_STEP_S: Final = 120.0
"""A step that runs longer has hung."""
IDLE_CHECK_S: Final = 1.0
"""How often an engine without work looks whether its worker is still there."""

_log = logging.getLogger(__name__)


class Detokenizing(Protocol):
    """Makes a detokenizer for the answer to a prompt."""

    def detokenizer(
        self, prompt_token_ids: Sequence[int], *, skip_special_tokens: bool
    ) -> Detokenizer:
        """Return a new detokenizer."""
        ...


class Engine:
    """Continuous batching over one started executor.

    Args:
        config: sizes of a step.
        facts: what the executor said at its start.
        executor: runs the steps; whoever started it stops it.
        tokenizer: turns tokens into text.
        metrics: counts what happens.
        board: learns of reservations and of changes of the load.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        config: EngineConfig,
        facts: ModelFacts,
        executor: Executor,
        tokenizer: Detokenizing,
        metrics: ReplicaMetrics,
        board: LoadBoard,
        clock: Callable[[], float],
    ) -> None:
        self.facts = facts
        self._executor = executor
        self._tokenizer = tokenizer
        self._metrics = metrics
        self._board = board
        self._clock = clock
        self._scheduler = Scheduler(
            num_blocks=facts.num_blocks,
            block_size=facts.block_size,
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
        )
        self._live: dict[str, tuple[Generation, LiveSequence]] = {}
        self._request_ids = map(str, itertools.count())
        self._work = asyncio.Event()
        self._estimator = OutputEstimator()
        self._rate = RecentRate()
        self._step_began_at: float | None = None
        self._failure: EngineStopped | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether the worker is there and no step has hung."""
        began_at = self._step_began_at
        has_hung = began_at is not None and self._clock() - began_at > MAX_STEP_S
        return self._failure is None and self._executor.failure is None and not has_hung

    @property
    def num_preemptions(self) -> int:
        """Preemptions since the start."""
        return self._scheduler.num_preemptions

    def load(self) -> Load:
        """Count the load now."""
        scheduler = self._scheduler
        return Load(
            pending_prompt_tokens=scheduler.pending_prompt_tokens,
            pending_output_tokens=scheduler.pending_output_tokens,
            running=scheduler.num_running,
            waiting=scheduler.num_waiting,
            kv_blocks_used=scheduler.kv_blocks_used,
            kv_blocks_total=scheduler.kv_blocks_total,
            tokens_per_second=self._rate.value(self._clock()),
        )

    async def warm_up(self) -> None:
        """Generate one token that no metric and no load report counts; before `run`.

        Raises:
            EngineStopped: the worker is gone.
        """
        sampling = SamplingParams(max_tokens=1, temperature=0.0)
        self._scheduler.add(
            Request(
                request_id="warm-up", prompt_token_ids=(0,), sampling=sampling, expected_tokens=1
            )
        )
        try:
            async with asyncio.timeout(MAX_STEP_S):
                while (step := self._scheduler.schedule()) is not None:
                    self._scheduler.update(step, await self._executor.execute(step))
        except TimeoutError:
            raise EngineStopped(f"the first step took longer than {MAX_STEP_S:g} s") from None

    async def run(self) -> NoReturn:
        """Run steps until cancelled; whatever ends it, every open generation ends with it.

        Raises:
            EngineStopped: the worker is gone.
        """
        try:
            while True:
                await self._step()
        except EngineStopped as failure:
            self.fail(failure)
            raise
        except Exception as error:
            # A mistake of ours: the readers must not wait for ever.
            _log.exception("the engine failed")
            stopped = EngineStopped(f"the engine failed: {error!r}")
            self.fail(stopped)
            raise stopped from error
        finally:
            self.fail(EngineStopped("the replica was stopped"))

    def submit(self, submission: Submission) -> Generation:
        """Accept a request; enter the result's context at once, its end is the request's end.

        Prompt and `max_tokens` of every sequence must fit `facts.max_model_len`.

        Raises:
            EngineStopped: the engine takes no more.
        """
        if self._failure is not None:
            raise self._failure
        sequences = tuple(
            self._live_sequence(index, spec) for index, spec in enumerate(submission.sequences)
        )
        generation = Generation(
            submission=submission,
            sequences=sequences,
            accepted_at=self._clock(),
            abort=self._abort,
        )
        for sequence, expected in zip(sequences, self._expectations(submission), strict=True):
            self._add(generation, sequence, expected)
        self._metrics.accepted(submission.prompt_tokens)
        if submission.reservation is not None:
            self._board.accept(submission.reservation)
        self._board.changed()
        self._work.set()
        return generation

    def fail(self, failure: EngineStopped) -> None:
        """End every open generation with `failure` and take no more; the first failure stays."""
        self._failure = self._failure or failure
        for generation in {id(g): g for g, _ in self._live.values()}.values():
            generation.fail(self._failure)
            self._abort(generation)

    def _live_sequence(self, index: int, spec: SequenceSpec) -> LiveSequence:
        detokenizer = self._tokenizer.detokenizer(
            spec.prompt_token_ids, skip_special_tokens=spec.skip_special_tokens
        )
        request_id = next(self._request_ids)
        return LiveSequence(index=index, request_id=request_id, spec=spec, detokenizer=detokenizer)

    def _expectations(self, submission: Submission) -> list[int]:
        specs = submission.sequences
        if submission.expected_tokens is not None:
            return split_expectation(submission.expected_tokens, len(specs))
        return [self._estimator.expect(spec.sampling.max_tokens) for spec in specs]

    def _add(self, generation: Generation, sequence: LiveSequence, expected: int) -> None:
        spec = generation.submission.sequences[sequence.index]
        self._live[sequence.request_id] = (generation, sequence)
        self._scheduler.add(
            Request(
                request_id=sequence.request_id,
                prompt_token_ids=spec.prompt_token_ids,
                sampling=spec.sampling,
                expected_tokens=expected,
            )
        )

    async def _step(self) -> None:
        step = self._scheduler.schedule()
        if step is None:
            await self._wait_for_work()
            return
        self._step_began_at = self._clock()
        result = await self._executor.execute(step)
        self._step_began_at = None
        now = self._clock()
        for event in self._scheduler.update(step, result):
            self._take(event, now)
        self._board.changed()

    async def _wait_for_work(self) -> None:
        self._work.clear()
        try:
            async with asyncio.timeout(IDLE_CHECK_S):
                await self._work.wait()
        except TimeoutError:
            if self._executor.failure is not None:
                raise EngineStopped(self._executor.failure) from None

    def _take(self, event: TokenEvent, now: float) -> None:
        """Give one token to its sequence, unless that was aborted while the step ran."""
        live = self._live.get(event.request_id)
        if live is None:
            return
        generation, sequence = live
        sequence.take(event)
        self._count(generation, sequence, now)
        generation.publish(sequence)
        if sequence.finish_reason is not None:
            self._metrics.finished(now - generation.accepted_at)
            if sequence.num_tokens > 0:
                self._estimator.learn(sequence.num_tokens)
            self._end(generation, sequence, sequence.finish_reason)

    def _count(self, generation: Generation, sequence: LiveSequence, now: float) -> None:
        if sequence.num_tokens == 0:
            return
        self._rate.add(1, now)
        if sequence.last_token_at is None:
            self._metrics.first_token(now - generation.accepted_at)
        else:
            self._metrics.next_token(now - sequence.last_token_at)
        sequence.last_token_at = now

    def _abort(self, generation: Generation) -> None:
        for sequence in generation.sequences:
            if sequence.request_id in self._live:
                self._end(generation, sequence, FinishReason.ABORT)

    def _end(self, generation: Generation, sequence: LiveSequence, reason: FinishReason) -> None:
        """Take a sequence out, exactly once; with the last one its reservation is finished."""
        del self._live[sequence.request_id]
        self._scheduler.finish(sequence.request_id, reason)
        generation.num_unfinished -= 1
        reservation = generation.submission.reservation
        if generation.num_unfinished == 0 and reservation is not None:
            self._board.finish(reservation)
        self._board.changed()
