"""One submitted request while it runs: its sequences, their text, and the outputs not yet read.

Outputs that nobody has read are merged, so a slow reader costs no more memory than its answer has
and holds up nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from serving_runtime.detokenizer import Detokenizer
from serving_runtime.errors import EngineStopped
from serving_runtime.request import FinishReason, SamplingParams, TokenLogprob
from serving_runtime.scheduler import TokenEvent
from serving_runtime.stop_strings import StopChecker


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceSpec:
    """One sequence to generate.

    Attributes:
        scores_only: no token is wanted, only the log probabilities of the prompt.
    """

    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    stop_strings: tuple[str, ...] = ()
    include_stop_string: bool = False
    skip_special_tokens: bool = True
    scores_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request as the engine takes it.

    Attributes:
        prompt_tokens: what the usage will say; a prompt with several choices counts once.
        expected_tokens: expected output of all sequences together; None: the engine estimates.
        reservation: the router's id of this attempt.
    """

    sequences: tuple[SequenceSpec, ...]
    prompt_tokens: int
    expected_tokens: int | None = None
    reservation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What was added to one sequence.

    Attributes:
        index: of the sequence within its submission.
        token_ids: the tokens drawn, an EOS or stop token included; text may lag behind them.
        logprobs: one for each token, if asked for.
        prompt_logprobs: of every prompt token but the first; once, if asked for.
        finish_reason: set on the last output of a sequence.
        stop_reason: the stop string or the id of the stop token that ended it; None for EOS.
    """

    index: int
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None


def merge(first: Output, second: Output) -> Output:
    """Return two outputs of one sequence, in their order, as one."""
    return Output(
        index=first.index,
        text=first.text + second.text,
        token_ids=first.token_ids + second.token_ids,
        logprobs=first.logprobs + second.logprobs,
        prompt_logprobs=first.prompt_logprobs or second.prompt_logprobs,
        finish_reason=second.finish_reason,
        stop_reason=second.stop_reason,
    )


@dataclass(slots=True)
class _Unread:
    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None


class LiveSequence:
    """One sequence between the scheduler's tokens and the reader's text.

    Attributes:
        last_token_at: when the token before was drawn, None before the first.
    """

    def __init__(
        self, *, index: int, request_id: str, spec: SequenceSpec, detokenizer: Detokenizer
    ) -> None:
        self.index = index
        self.request_id = request_id
        self.finish_reason: FinishReason | None = None
        self.last_token_at: float | None = None
        self.num_tokens = 0
        self._spec = spec
        self._detokenizer = detokenizer
        self._stop = StopChecker(spec.stop_strings, include_stop_string=spec.include_stop_string)
        self._stop_reason: str | int | None = None
        self._unread = _Unread()

    def take(self, event: TokenEvent) -> None:
        """Take in the next token; a stop string in its text ends the sequence."""
        self.finish_reason = event.finish_reason
        if event.prompt_logprobs is not None:
            self._unread.prompt_logprobs = event.prompt_logprobs
        if self._spec.scores_only:
            return
        self.num_tokens += 1
        self._unread.token_ids.append(event.token_id)
        if event.logprob is not None:
            self._unread.logprobs.append(event.logprob)
        self._unread.text.append(self._text_of(event))

    def read(self) -> Output:
        """Return everything since the last call."""
        unread, self._unread = self._unread, _Unread()
        return Output(
            index=self.index,
            text="".join(unread.text),
            token_ids=tuple(unread.token_ids),
            logprobs=tuple(unread.logprobs),
            prompt_logprobs=unread.prompt_logprobs,
            finish_reason=self.finish_reason,
            stop_reason=self._stop_reason,
        )

    def _text_of(self, event: TokenEvent) -> str:
        if event.finish_reason is FinishReason.STOP:
            is_stop_token = event.token_id in self._spec.sampling.stop_token_ids
            self._stop_reason = event.token_id if is_stop_token else None
            return self._stop.flush()
        text = self._detokenizer.push(event.token_id)
        if self.num_tokens > self._spec.sampling.min_tokens:
            text = self._stop.push(text)
        if self._stop.matched is not None:
            self._stop_reason = self._stop.matched
            self.finish_reason = FinishReason.STOP
        elif self.finish_reason is not None:
            text += self._stop.flush()
        return text


class Generation:
    """A request that the engine has accepted. Leaving its context aborts what is unfinished.

    Args:
        submission: what was asked for.
        sequences: of the submission, in its order.
        accepted_at: monotonic seconds.
        abort: takes the unfinished sequences out of the engine.
    """

    def __init__(
        self,
        *,
        submission: Submission,
        sequences: tuple[LiveSequence, ...],
        accepted_at: float,
        abort: Callable[[Generation], None],
    ) -> None:
        self.submission = submission
        self.sequences = sequences
        self.accepted_at = accepted_at
        self.num_unfinished = len(sequences)
        self._abort = abort
        self._unread: dict[int, LiveSequence] = {}
        self._news = asyncio.Event()
        self._failure: EngineStopped | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._abort(self)

    async def outputs(self) -> AsyncGenerator[Output, None]:
        """Yield what is new until every sequence has finished.

        Raises:
            EngineStopped: the engine is gone; what was generated before has been yielded.
        """
        while True:
            while self._unread:
                index = next(iter(self._unread))
                yield self._unread.pop(index).read()
            if self._failure is not None:
                raise self._failure
            if self.num_unfinished == 0:
                return
            self._news.clear()
            await self._news.wait()

    def publish(self, sequence: LiveSequence) -> None:
        """Let the reader know that a sequence has something new."""
        self._unread[sequence.index] = sequence
        self._news.set()

    def fail(self, failure: EngineStopped) -> None:
        """End the outputs with a failure."""
        self._failure = failure
        self._news.set()
