"""What runs in the next step: a pure decision over requests and blocks, no clock and no I/O.

The rule is that of vLLM's v1 scheduler: there are no phases, only sequences with more known than
computed tokens. A step hands out one budget of tokens, first to what runs, then to what waits;
when blocks run out the youngest sequence is preempted and later computed again. Unlike there, a
sequence gets the blocks of all its known tokens when it is admitted, so only decoding can preempt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from serving_contract.estimate import raise_expectation
from serving_runtime.kv_cache import BlockPool
from serving_runtime.request import FinishReason, Request, TokenLogprob
from serving_runtime.step import Chunk, NewSequence, Step, StepResult

MAX_SCORED_TOKENS: Final = 256
"""Prompt tokens of one chunk whose log probabilities are asked for: each costs a row of logits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEvent:
    """A token that was drawn for a sequence.

    Attributes:
        prompt_logprobs: of every prompt token but the first; with the first token only.
        finish_reason: set on the last token.
    """

    request_id: str
    token_id: int
    logprob: TokenLogprob | None
    prompt_logprobs: tuple[TokenLogprob, ...] | None
    finish_reason: FinishReason | None


@dataclass(frozen=True, slots=True)
class _InFlight:
    """The step that a rank is working on; `requests` go with its chunks."""

    step: Step
    requests: tuple[Request, ...]


class Scheduler:
    """The unfinished sequences of one replica; at most one step is in flight."""

    def __init__(
        self, *, num_blocks: int, block_size: int, max_num_seqs: int, max_num_batched_tokens: int
    ) -> None:
        self._pool = BlockPool(num_blocks=num_blocks, block_size=block_size)
        self._max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self._waiting: OrderedDict[str, Request] = OrderedDict()
        self._running: OrderedDict[str, Request] = OrderedDict()
        self._forgotten: list[str] = []
        self._in_flight: _InFlight | None = None
        self._step_id = 0
        self._pending_prompt_tokens = 0
        self._pending_output_tokens = 0
        self._num_preemptions = 0

    @property
    def pending_prompt_tokens(self) -> int:
        """Known tokens still to be computed; a drawn token's own step counts as output."""
        return self._pending_prompt_tokens

    @property
    def pending_output_tokens(self) -> int:
        """Expected tokens still to be drawn."""
        return self._pending_output_tokens

    @property
    def num_running(self) -> int:
        """Sequences that own blocks."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences that were not admitted yet, or were preempted."""
        return len(self._waiting)

    @property
    def num_preemptions(self) -> int:
        """Preemptions since the start."""
        return self._num_preemptions

    @property
    def kv_blocks_used(self) -> int:
        """Blocks that a sequence owns."""
        return self._pool.num_used

    @property
    def kv_blocks_total(self) -> int:
        """Blocks of the KV cache."""
        return self._pool.num_blocks

    def add(self, request: Request) -> None:
        """Queue a sequence whose prompt and `max_tokens` together fit the KV cache."""
        assert request.request_id not in self._waiting, "a request id in use"
        assert request.request_id not in self._running, "a request id in use"
        request.expected_tokens = max(1, min(request.expected_tokens, request.sampling.max_tokens))
        self._waiting[request.request_id] = request
        self._pending_prompt_tokens += _owed_prompt(request)
        self._pending_output_tokens += _owed_output(request)

    def finish(self, request_id: str, reason: FinishReason) -> None:
        """End a sequence; nothing happens if it is not (or no longer) unfinished.

        Its blocks are free at once, or, when it is part of the step in flight, with its result.
        """
        request = self._running.get(request_id) or self._waiting.get(request_id)
        if request is not None:
            self._end(request, reason)
            if not self._is_in_flight(request):
                self._pool.release(request.block_ids)

    def schedule(self) -> Step | None:
        """Choose the next step, None if there is nothing to run; its result must come in first."""
        assert self._in_flight is None, "a step is in flight"
        chunks = self._schedule_running()
        admitted = self._admit(chunks)
        if not chunks:
            return None
        self._step_id += 1
        step = Step(
            step_id=self._step_id,
            forgotten=tuple(self._forgotten),
            admitted=tuple(admitted),
            chunks=tuple(chunks),
        )
        self._forgotten.clear()
        requests = tuple(self._running[chunk.request_id] for chunk in chunks)
        self._in_flight = _InFlight(step, requests)
        return step

    def update(self, step: Step, result: StepResult) -> list[TokenEvent]:
        """Take in a step's result; sequences that ended meanwhile are passed over."""
        in_flight = self._in_flight
        assert in_flight is not None, "no step is in flight"
        assert in_flight.step is step, "the result of another step"
        assert result.step_id == step.step_id, "the result of another step"
        self._in_flight = None
        token_ids = iter(result.token_ids)
        events = []
        for chunk, request in zip(step.chunks, in_flight.requests, strict=True):
            token_id = next(token_ids) if chunk.samples else None
            if request.finish_reason is None:
                self._advance(request, chunk.num_tokens, token_id)
                if token_id is not None:
                    events.append(_event(request, token_id, result))
            if request.finish_reason is not None:
                self._pool.release(request.block_ids)
        return events

    def _schedule_running(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        budget = self._max_num_batched_tokens
        for request in list(self._running.values()):
            # A victim of the preemption below is younger, hence later in this loop.
            if budget == 0 or request.request_id not in self._running:
                break
            num_tokens = _chunk_len(request, budget)
            new_block_ids = self._grow(request, request.num_computed_tokens + num_tokens)
            if new_block_ids is None:
                break
            chunks.append(_chunk(request, num_tokens, new_block_ids))
            budget -= num_tokens
        return chunks

    def _admit(self, chunks: list[Chunk]) -> list[NewSequence]:
        """Admit waiting sequences in their order and append their first chunks."""
        admitted: list[NewSequence] = []
        budget = self._max_num_batched_tokens - sum(chunk.num_tokens for chunk in chunks)
        while self._waiting and budget > 0 and len(self._running) < self._max_num_seqs:
            request = next(iter(self._waiting.values()))
            if not self._has_room_for(request):
                break
            del self._waiting[request.request_id]
            self._running[request.request_id] = request
            new_block_ids = self._pool.extend(request.block_ids, request.num_tokens)
            assert new_block_ids is not None, "room was made sure of"
            num_tokens = _chunk_len(request, budget)
            chunks.append(_chunk(request, num_tokens, new_block_ids))
            admitted.append(_new_sequence(request))
            budget -= num_tokens
        return admitted

    def _has_room_for(self, request: Request) -> bool:
        """Keep one block free for each running sequence, or admissions would only be preempted."""
        needed = self._pool.missing(request.block_ids, request.num_tokens)
        return needed + len(self._running) <= self._pool.num_free

    def _grow(self, request: Request, num_tokens: int) -> tuple[int, ...] | None:
        """Extend a running sequence, preempting the youngest ones; None if that was itself."""
        while request.request_id in self._running:
            new_block_ids = self._pool.extend(request.block_ids, num_tokens)
            if new_block_ids is not None:
                return new_block_ids
            _, youngest = self._running.popitem()
            self._preempt(youngest)
        return None

    def _preempt(self, request: Request) -> None:
        with self._accounting(request):
            request.num_computed_tokens = 0
        self._pool.release(request.block_ids)
        self._forgotten.append(request.request_id)
        self._waiting[request.request_id] = request
        self._waiting.move_to_end(request.request_id, last=False)
        self._num_preemptions += 1

    def _advance(self, request: Request, num_tokens: int, token_id: int | None) -> None:
        reason = None
        with self._accounting(request):
            request.num_computed_tokens += num_tokens
            if token_id is not None:
                request.output_token_ids.append(token_id)
                reason = _finish_reason(request, token_id)
                if reason is None and len(request.output_token_ids) >= request.expected_tokens:
                    request.expected_tokens = raise_expectation(
                        request.expected_tokens, request.sampling.max_tokens
                    )
        if reason is not None:
            self._end(request, reason)

    def _end(self, request: Request, reason: FinishReason) -> None:
        """Take a sequence off the books; its blocks are the caller's business."""
        with self._accounting(request):
            request.finish_reason = reason
        if self._running.pop(request.request_id, None) is None:
            del self._waiting[request.request_id]
        else:
            self._forgotten.append(request.request_id)

    def _is_in_flight(self, request: Request) -> bool:
        return self._in_flight is not None and request in self._in_flight.requests

    @contextmanager
    def _accounting(self, request: Request) -> Iterator[None]:
        """Keep the pending tokens equal to their sums while a request changes."""
        prompt, output = _owed_prompt(request), _owed_output(request)
        yield
        self._pending_prompt_tokens += _owed_prompt(request) - prompt
        self._pending_output_tokens += _owed_output(request) - output


def _owed_prompt(request: Request) -> int:
    if request.finish_reason is not None:
        return 0
    # The token drawn last was charged as output; computing it is part of drawing the next one.
    drawn_last = 1 if request.output_token_ids else 0
    return request.num_tokens - request.num_computed_tokens - drawn_last


def _owed_output(request: Request) -> int:
    if request.finish_reason is not None:
        return 0
    return request.expected_tokens - len(request.output_token_ids)


def _chunk_len(request: Request, budget: int) -> int:
    scores = request.sampling.prompt_logprobs is not None and not request.output_token_ids
    limit = min(budget, MAX_SCORED_TOKENS) if scores else budget
    return min(request.num_tokens - request.num_computed_tokens, limit)


def _chunk(request: Request, num_tokens: int, new_block_ids: tuple[int, ...]) -> Chunk:
    start = request.num_computed_tokens
    return Chunk(
        request_id=request.request_id,
        start=start,
        num_tokens=num_tokens,
        new_block_ids=new_block_ids,
        samples=start + num_tokens == request.num_tokens,
    )


def _new_sequence(request: Request) -> NewSequence:
    return NewSequence(
        request_id=request.request_id,
        token_ids=(*request.prompt_token_ids, *request.output_token_ids),
        prompt_len=len(request.prompt_token_ids),
        sampling=request.sampling,
    )


def _event(request: Request, token_id: int, result: StepResult) -> TokenEvent:
    return TokenEvent(
        request_id=request.request_id,
        token_id=token_id,
        logprob=result.logprobs.get(request.request_id),
        prompt_logprobs=result.prompt_logprobs.get(request.request_id),
        finish_reason=request.finish_reason,
    )


def _finish_reason(request: Request, token_id: int) -> FinishReason | None:
    sampling = request.sampling
    if token_id in sampling.eos_token_ids or token_id in sampling.stop_token_ids:
        return FinishReason.STOP
    if len(request.output_token_ids) >= sampling.max_tokens:
        return FinishReason.LENGTH
    return None
