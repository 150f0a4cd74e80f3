"""Decisions of the scheduler, with a rank that draws tokens by a formula."""

from collections.abc import Iterable

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving_runtime.request import FinishReason, Request, SamplingParams
from serving_runtime.scheduler import MAX_SCORED_TOKENS, Scheduler, TokenEvent
from serving_runtime.step import Chunk, Step, StepResult

EOS = 99


def make_scheduler(
    *, num_blocks: int = 100, block_size: int = 4, max_num_seqs: int = 8, budget: int = 64
) -> Scheduler:
    return Scheduler(
        num_blocks=num_blocks,
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=budget,
    )


def make_request(
    request_id: str, prompt_len: int = 5, max_tokens: int = 4, expected: int = 4, **sampling: object
) -> Request:
    return Request(
        request_id=request_id,
        prompt_token_ids=tuple(range(prompt_len)),
        sampling=SamplingParams(max_tokens=max_tokens, **sampling),  # type: ignore[arg-type]
        expected_tokens=expected,
    )


def draw(step: Step, token_id: int = 1) -> StepResult:
    count = sum(chunk.samples for chunk in step.chunks)
    return StepResult(step_id=step.step_id, token_ids=(token_id,) * count)


def run_step(scheduler: Scheduler, token_id: int = 1) -> tuple[Step, list[TokenEvent]]:
    step = scheduler.schedule()
    assert step is not None
    return step, scheduler.update(step, draw(step, token_id))


def lengths(step: Step) -> dict[str, int]:
    return {chunk.request_id: chunk.num_tokens for chunk in step.chunks}


def test_nothing_to_run_is_no_step() -> None:
    assert make_scheduler().schedule() is None


def test_a_prompt_is_sent_once_and_then_decoded_token_by_token() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("a"))
    first, events = run_step(scheduler)
    assert [new.token_ids for new in first.admitted] == [(0, 1, 2, 3, 4)]
    assert [event.token_id for event in events] == [1]
    second, _ = run_step(scheduler)
    assert second.admitted == ()
    assert second.chunks == (
        Chunk(request_id="a", start=5, num_tokens=1, new_block_ids=(), samples=True),
    )


def test_a_prompt_over_the_budget_is_cut_and_draws_at_its_end_only() -> None:
    scheduler = make_scheduler(budget=8)
    scheduler.add(make_request("a", prompt_len=20))
    steps = [run_step(scheduler) for _ in range(3)]
    assert [lengths(step) for step, _ in steps] == [{"a": 8}, {"a": 8}, {"a": 4}]
    assert [len(events) for _, events in steps] == [0, 0, 1]


def test_decoding_goes_on_beside_a_long_prompt() -> None:
    scheduler = make_scheduler(budget=8)
    scheduler.add(make_request("short"))
    run_step(scheduler)
    scheduler.add(make_request("long", prompt_len=30))
    step, _ = run_step(scheduler)
    assert lengths(step) == {"short": 1, "long": 7}


def test_a_scored_prompt_is_cut_however_large_the_budget() -> None:
    scheduler = make_scheduler(budget=10_000, num_blocks=1000)
    scheduler.add(make_request("a", prompt_len=MAX_SCORED_TOKENS + 10, prompt_logprobs=0))
    assert lengths(run_step(scheduler)[0]) == {"a": MAX_SCORED_TOKENS}


def test_requests_are_admitted_in_their_order() -> None:
    scheduler = make_scheduler(num_blocks=5)
    scheduler.add(make_request("a", prompt_len=10))
    scheduler.add(make_request("large", prompt_len=16))
    scheduler.add(make_request("small", prompt_len=1))
    step, _ = run_step(scheduler)
    assert lengths(step) == {"a": 10}
    assert (scheduler.num_running, scheduler.num_waiting) == (1, 2)


def test_no_more_than_max_num_seqs_run() -> None:
    scheduler = make_scheduler(max_num_seqs=2)
    for request_id in "abc":
        scheduler.add(make_request(request_id))
    run_step(scheduler)
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 1)


@pytest.mark.parametrize(
    ("sampling", "token_id", "reason"),
    [
        ({"eos_token_ids": frozenset({EOS})}, EOS, FinishReason.STOP),
        ({"stop_token_ids": frozenset({EOS})}, EOS, FinishReason.STOP),
        ({}, EOS, None),
        ({"max_tokens": 1}, 1, FinishReason.LENGTH),
        (
            {"max_tokens": 1, "eos_token_ids": frozenset({EOS})},
            EOS,
            FinishReason.STOP,
        ),
    ],
    ids=["eos", "stop-token", "eos-ignored", "length", "eos-at-the-limit"],
)
def test_the_last_token_says_why_it_is_the_last(
    sampling: dict[str, object], token_id: int, reason: FinishReason | None
) -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("a", **sampling))  # type: ignore[arg-type]
    _, events = run_step(scheduler, token_id)
    assert [event.finish_reason for event in events] == [reason]
    assert scheduler.kv_blocks_used == (0 if reason else 2)


def test_a_finished_sequence_is_forgotten_by_the_rank() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("a", max_tokens=1))
    scheduler.add(make_request("b"))
    run_step(scheduler)
    assert run_step(scheduler)[0].forgotten == ("a",)
    assert run_step(scheduler)[0].forgotten == ()


def test_the_youngest_is_preempted_and_sent_again_with_its_output() -> None:
    scheduler = make_scheduler(num_blocks=5)
    for request_id in "ab":
        scheduler.add(make_request(request_id, prompt_len=7, max_tokens=8, expected=8))
    run_step(scheduler)
    run_step(scheduler)
    step, _ = run_step(scheduler)
    assert (step.forgotten, lengths(step)) == (("b",), {"a": 1})
    assert (scheduler.num_preemptions, scheduler.num_waiting) == (1, 1)
    while not step.admitted:
        step, _ = run_step(scheduler)
    assert [new.token_ids for new in step.admitted] == [(*range(7), 1, 1)]
    assert lengths(step)["b"] == 9


def test_an_abort_between_steps_frees_the_blocks_at_once() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("a"))
    run_step(scheduler)
    scheduler.finish("a", FinishReason.ABORT)
    assert (scheduler.kv_blocks_used, scheduler.num_running) == (0, 0)
    assert scheduler.schedule() is None


def test_an_abort_during_a_step_frees_the_blocks_with_its_result() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("a"))
    step = scheduler.schedule()
    assert step is not None
    scheduler.finish("a", FinishReason.ABORT)
    scheduler.finish("a", FinishReason.ABORT)
    assert (scheduler.kv_blocks_used, scheduler.num_running) == (2, 0)
    assert (scheduler.pending_prompt_tokens, scheduler.pending_output_tokens) == (0, 0)
    assert scheduler.update(step, draw(step)) == []
    assert scheduler.kv_blocks_used == 0


def test_an_id_can_be_used_again_while_its_last_step_is_in_flight() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("a"))
    step = scheduler.schedule()
    assert step is not None
    scheduler.finish("a", FinishReason.ABORT)
    scheduler.add(make_request("a", prompt_len=3))
    assert scheduler.update(step, draw(step)) == []
    second, events = run_step(scheduler)
    assert (second.forgotten, lengths(second)) == (("a",), {"a": 3})
    assert len(events) == 1


def test_finishing_what_does_not_exist_does_nothing() -> None:
    make_scheduler().finish("a", FinishReason.ABORT)


def test_pending_tokens_follow_prompt_and_expected_output() -> None:
    scheduler = make_scheduler(budget=4)
    scheduler.add(make_request("a", prompt_len=6, max_tokens=9, expected=2))
    seen = [(scheduler.pending_prompt_tokens, scheduler.pending_output_tokens)]
    for _ in range(4):
        run_step(scheduler)
        seen.append((scheduler.pending_prompt_tokens, scheduler.pending_output_tokens))
    # With two tokens drawn the expectation of 2 becomes 3, and with three it becomes 4.
    assert seen == [(6, 2), (2, 2), (0, 1), (0, 1), (0, 1)]


def owed(requests: Iterable[Request]) -> tuple[int, int]:
    """The pending tokens, recomputed from the requests."""
    unfinished = [request for request in requests if request.finish_reason is None]
    prompt = sum(
        r.num_tokens - r.num_computed_tokens - (len(r.output_token_ids) > 0) for r in unfinished
    )
    return prompt, sum(r.expected_tokens - len(r.output_token_ids) for r in unfinished)


class SchedulerMachine(RuleBasedStateMachine):
    """Random requests, aborts and tokens; everything is counted again after every event."""

    NUM_BLOCKS, BLOCK_SIZE = 12, 3

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = make_scheduler(
            num_blocks=self.NUM_BLOCKS, block_size=self.BLOCK_SIZE, max_num_seqs=4, budget=9
        )
        self.requests: list[Request] = []
        self.step: Step | None = None
        # What the rank knows: tokens and blocks of each sequence.
        self.known: dict[str, tuple[list[int], list[int]]] = {}

    @rule(prompt_len=st.integers(1, 18), max_tokens=st.integers(1, 18), expected=st.integers(1, 30))
    def add(self, prompt_len: int, max_tokens: int, expected: int) -> None:
        eos = frozenset({EOS})
        request_id = str(len(self.requests))
        request = make_request(request_id, prompt_len, max_tokens, expected, eos_token_ids=eos)
        self.requests.append(request)
        self.scheduler.add(request)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.requests))
        self.scheduler.finish(request.request_id, FinishReason.ABORT)
        assert request.finish_reason is not None

    @precondition(lambda self: self.step is None)
    @rule()
    def schedule(self) -> None:
        self.step = self.scheduler.schedule()
        if self.step is None:
            assert all(request.finish_reason is not None for request in self.requests)
        else:
            self.follow(self.step)

    @precondition(lambda self: self.step is not None)
    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        assert self.step is not None
        sampling = [chunk.request_id for chunk in self.step.chunks if chunk.samples]
        drawn = tuple(data.draw(st.sampled_from([1, 2, 3, EOS])) for _ in sampling)
        result = StepResult(step_id=self.step.step_id, token_ids=drawn)
        for request_id, token_id in zip(sampling, drawn, strict=True):
            self.known[request_id][0].append(token_id)
        for event in self.scheduler.update(self.step, result):
            assert event.request_id in sampling
        self.step = None

    def follow(self, step: Step) -> None:
        """Do what a rank does, and check that the step makes sense to it."""
        for request_id in step.forgotten:
            del self.known[request_id]
        for new in step.admitted:
            assert new.request_id not in self.known
            self.known[new.request_id] = (list(new.token_ids), [])
        assert 0 < sum(chunk.num_tokens for chunk in step.chunks) <= 9
        assert len(self.known) <= 4
        for chunk in step.chunks:
            tokens, blocks = self.known[chunk.request_id]
            blocks += chunk.new_block_ids
            end = chunk.start + chunk.num_tokens
            assert end <= len(blocks) * self.BLOCK_SIZE
            assert chunk.samples == (end == len(tokens))
        written = [block for _, blocks in self.known.values() for block in blocks]
        assert len(written) == len(set(written))

    @invariant()
    def pending_tokens_are_the_sums_over_the_requests(self) -> None:
        scheduler = self.scheduler
        pending = (scheduler.pending_prompt_tokens, scheduler.pending_output_tokens)
        assert pending == owed(self.requests)

    @invariant()
    def blocks_are_owned_once_or_free(self) -> None:
        owned = [block for request in self.requests for block in request.block_ids]
        assert len(owned) == len(set(owned)) == self.scheduler.kv_blocks_used

    @invariant()
    def every_unfinished_sequence_owes_something(self) -> None:
        for request in self.requests:
            if request.finish_reason is None:
                assert len(request.output_token_ids) < request.expected_tokens
                assert request.expected_tokens <= request.sampling.max_tokens

    @invariant()
    def counts_are_those_of_the_requests(self) -> None:
        unfinished = sum(request.finish_reason is None for request in self.requests)
        assert self.scheduler.num_running + self.scheduler.num_waiting == unfinished

    def teardown(self) -> None:
        """Every request comes to its end, whatever happened before."""
        step = self.step or self.scheduler.schedule()
        while step is not None:
            self.scheduler.update(step, draw(step))
            step = self.scheduler.schedule()
        assert all(request.finish_reason is not None for request in self.requests)
        assert self.scheduler.kv_blocks_used == 0
        assert (self.scheduler.pending_prompt_tokens, self.scheduler.pending_output_tokens) == (
            0,
            0,
        )


SchedulerMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None
)
TestScheduler = SchedulerMachine.TestCase
