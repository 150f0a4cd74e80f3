"""Answers of `/v1/completions`, whole and as a stream."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from serving_contract.openai import CompletionRequest
from serving_contract.openai_answers import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    Usage,
)
from serving_runtime.generation import Output
from serving_runtime.server.logprobs import CompletionLogprobsWriter, joined
from serving_runtime.tokenizer import Tokenizer

OBJECT: Final = "text_completion"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """A prompt as text, for `echo`, and as tokens."""

    text: str
    token_ids: tuple[int, ...]


class CompletionWriter:
    """Writes the answer to one request.

    Args:
        request: says what the answer contains.
        prompts: in the order of the request; choices are `n` of the first, then of the second ...
        tokenizer: says how a token is written.
        created: Unix time in seconds.
    """

    def __init__(
        self,
        request: CompletionRequest,
        prompts: tuple[EncodedPrompt, ...],
        tokenizer: Tokenizer,
        created: int,
    ) -> None:
        self._request = request
        self._prompts = prompts
        self._tokenizer = tokenizer
        self._created = created
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._logprobs_writers: dict[int, CompletionLogprobsWriter] = {}
        self._begun: set[int] = set()

    def events(self, output: Output) -> bytes:
        """Return the event for one output; none if it has nothing to show."""
        is_first = output.index not in self._begun
        has_ids = bool(self._request.return_token_ids and output.token_ids)
        has_something = output.text or output.logprobs or output.finish_reason or has_ids
        if not has_something and not (is_first and self._request.echo):
            return b""
        completion = self._completion([self._choice(output)])
        if self._request.include_usage:
            completion = completion.model_copy(update={"usage": None})
        return completion.to_event()

    def usage_event(self, usage: Usage) -> bytes:
        """Return the last event, which has no choices."""
        return self._completion([]).model_copy(update={"usage": usage}).to_event()

    def whole(self, outputs: Sequence[Output], usage: Usage) -> bytes:
        """Return the answer in one piece."""
        completion = self._completion([self._choice(output) for output in outputs])
        return completion.model_copy(update={"usage": usage}).to_json()

    def _choice(self, output: Output) -> CompletionChoice:
        is_first = output.index not in self._begun
        self._begun.add(output.index)
        prompt = self._prompts[output.index // (self._request.n or 1)]
        echoed = prompt.text if is_first and self._request.echo else ""
        choice = CompletionChoice(
            index=output.index,
            text=echoed + output.text,
            logprobs=self._logprobs(output, prompt, is_first=is_first),
            finish_reason=output.finish_reason.value if output.finish_reason else None,
            stop_reason=output.stop_reason,
        )
        return choice.model_copy(update=self._shown_token_ids(output, prompt, is_first=is_first))

    def _shown_token_ids(
        self, output: Output, prompt: EncodedPrompt, *, is_first: bool
    ) -> dict[str, list[int]]:
        if not self._request.return_token_ids:
            return {}
        shown = {"token_ids": list(output.token_ids)}
        return {**shown, "prompt_token_ids": list(prompt.token_ids)} if is_first else shown

    def _logprobs(
        self, output: Output, prompt: EncodedPrompt, *, is_first: bool
    ) -> CompletionLogprobs | None:
        if self._request.logprobs is None:
            return None
        writer = self._logprobs_writer(output.index, prompt)
        if not (is_first and self._request.echo):
            return writer.answer(output.logprobs)
        echoed = writer.prompt(prompt.token_ids, output.prompt_logprobs or ())
        return joined(echoed, writer.answer(output.logprobs))

    def _logprobs_writer(self, index: int, prompt: EncodedPrompt) -> CompletionLogprobsWriter:
        if index not in self._logprobs_writers:
            context = () if self._request.echo else prompt.token_ids
            skip = self._request.skip_special_tokens is not False
            self._logprobs_writers[index] = CompletionLogprobsWriter(
                self._tokenizer,
                self._tokenizer.detokenizer(context, skip_special_tokens=skip),
                self._request.logprobs or 0,
            )
        return self._logprobs_writers[index]

    def _completion(self, choices: list[CompletionChoice]) -> Completion:
        return Completion(
            id=self._id,
            object=OBJECT,
            created=self._created,
            model=self._request.model,
            system_fingerprint=None,
            choices=choices,
        )
