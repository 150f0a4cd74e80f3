"""Answers of `/v1/chat/completions`, whole and as a stream."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

from serving_contract.openai import ChatRequest
from serving_contract.openai_answers import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatLogprobs,
    MessageDelta,
    Usage,
)
from serving_runtime.generation import Output
from serving_runtime.server.logprobs import chat_logprobs
from serving_runtime.tokenizer import Tokenizer

CHUNK: Final = "chat.completion.chunk"


class ChatWriter:
    """Writes the answer to one request.

    Args:
        request: says what the answer contains.
        prompt_token_ids: shown on request.
        tokenizer: says how a token is written.
        created: Unix time in seconds.
    """

    def __init__(
        self,
        request: ChatRequest,
        prompt_token_ids: tuple[int, ...],
        tokenizer: Tokenizer,
        created: int,
    ) -> None:
        self._request = request
        self._prompt_token_ids = prompt_token_ids
        self._tokenizer = tokenizer
        self._created = created
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._begun: set[int] = set()

    def events(self, output: Output) -> bytes:
        """Return the events for one output: the role first, the finish reason last."""
        events = []
        if output.index not in self._begun:
            events.append(self._opening(output.index))
        if self._shows_something(output):
            events.append(self._event(self._content(output)))
        if output.finish_reason is not None:
            events.append(self._event(_ending(output)))
        return b"".join(events)

    def usage_event(self, usage: Usage) -> bytes:
        """Return the last event, which has no choices."""
        return self._chunk([]).model_copy(update={"usage": usage}).to_event()

    def whole(self, outputs: Sequence[Output], usage: Usage) -> bytes:
        """Return the answer in one piece."""
        answer = ChatCompletion(
            id=self._id,
            object="chat.completion",
            created=self._created,
            model=self._request.model,
            system_fingerprint=None,
            choices=[self._choice(output) for output in outputs],
            usage=usage,
        )
        if self._request.return_token_ids:
            answer = answer.model_copy(update={"prompt_token_ids": list(self._prompt_token_ids)})
        return answer.to_json()

    def _opening(self, index: int) -> bytes:
        is_first = not self._begun
        self._begun.add(index)
        delta = MessageDelta(role="assistant", content="", refusal=None)
        chunk = self._chunk(
            [ChatChunkChoice(index=index, delta=delta, logprobs=None, finish_reason=None)]
        )
        if is_first and self._request.return_token_ids:
            chunk = chunk.model_copy(update={"prompt_token_ids": list(self._prompt_token_ids)})
        return self._including_null_usage(chunk)

    def _shows_something(self, output: Output) -> bool:
        has_ids = bool(self._request.return_token_ids and output.token_ids)
        return bool(output.text or output.logprobs) or has_ids

    def _content(self, output: Output) -> ChatChunkChoice:
        choice = ChatChunkChoice(
            index=output.index,
            delta=MessageDelta(content=output.text),
            logprobs=self._logprobs(output),
            finish_reason=None,
        )
        if self._request.return_token_ids:
            return choice.model_copy(update={"token_ids": list(output.token_ids)})
        return choice

    def _choice(self, output: Output) -> ChatChoice:
        assert output.finish_reason is not None
        choice = ChatChoice(
            index=output.index,
            message=AssistantMessage(role="assistant", content=output.text, refusal=None),
            logprobs=self._logprobs(output),
            finish_reason=output.finish_reason.value,
            stop_reason=output.stop_reason,
        )
        if self._request.return_token_ids:
            return choice.model_copy(update={"token_ids": list(output.token_ids)})
        return choice

    def _logprobs(self, output: Output) -> ChatLogprobs | None:
        return chat_logprobs(output.logprobs, self._tokenizer) if self._request.logprobs else None

    def _event(self, choice: ChatChunkChoice) -> bytes:
        return self._including_null_usage(self._chunk([choice]))

    def _including_null_usage(self, chunk: ChatChunk) -> bytes:
        """All chunks but the last say `usage: null` when the last one says what it is."""
        if self._request.include_usage:
            chunk = chunk.model_copy(update={"usage": None})
        return chunk.to_event()

    def _chunk(self, choices: list[ChatChunkChoice]) -> ChatChunk:
        return ChatChunk(
            id=self._id,
            object=CHUNK,
            created=self._created,
            model=self._request.model,
            system_fingerprint=None,
            choices=choices,
        )


def _ending(output: Output) -> ChatChunkChoice:
    assert output.finish_reason is not None
    return ChatChunkChoice(
        index=output.index,
        delta=MessageDelta(),
        logprobs=None,
        finish_reason=output.finish_reason.value,
        stop_reason=output.stop_reason,
    )
