"""What the OpenAI API answers: objects, stream chunks and the error.

Sent with `exclude_unset`, so a field that OpenAI sends as null is set to None and a field that it
leaves out is not set at all. Hence no defaults except for what is optional.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """Base of everything that is sent to clients."""

    model_config = ConfigDict(frozen=True)

    def to_json(self) -> bytes:
        """Serialise what was set."""
        return self.model_dump_json(exclude_unset=True).encode()

    def to_event(self) -> bytes:
        """Serialise as one server-sent event."""
        return b"data: " + self.to_json() + b"\n\n"


class PromptTokensDetails(Answer):
    """How the prompt's tokens were come by."""

    cached_tokens: int


class Usage(Answer):
    """Token counts of one request, all choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class TopLogprob(Answer):
    """One likely token; `bytes` are its UTF-8 bytes, which may be part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class ChatTokenLogprob(TopLogprob):
    """A token of the answer and those most likely in its place, best first."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Answer):
    """Log probabilities of chat: one entry for each token."""

    content: list[ChatTokenLogprob]
    refusal: None


class CompletionLogprobs(Answer):
    """Log probabilities of completions: parallel lists; the first prompt token has none."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None] | None


class AssistantMessage(Answer):
    """The whole answer of one choice."""

    role: Literal["assistant"]
    content: str
    refusal: None


class MessageDelta(Answer):
    """What one chunk adds to the message of one choice."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None


class ChatChoice(Answer):
    """One of the `n` answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: str
    stop_reason: str | int | None
    token_ids: list[int] | None = None


class ChatChunkChoice(Answer):
    """What one chunk adds to one of the `n` answers."""

    index: int
    delta: MessageDelta
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    stop_reason: str | int | None = None
    token_ids: list[int] | None = None


class CompletionChoice(Answer):
    """One completion, whole or what a chunk adds to it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None
    stop_reason: str | int | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class Envelope(Answer):
    """What all answers to generation requests begin with; `created` is a Unix time in seconds."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: None


class ChatCompletion(Envelope):
    """The answer of `/v1/chat/completions`."""

    choices: list[ChatChoice]
    usage: Usage
    prompt_token_ids: list[int] | None = None


class ChatChunk(Envelope):
    """One event of a chat stream."""

    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    prompt_token_ids: list[int] | None = None


class Completion(Envelope):
    """The answer of `/v1/completions`, or one event of its stream."""

    choices: list[CompletionChoice]
    usage: Usage | None = None


class ModelCard(Answer):
    """One model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class ModelList(Answer):
    """The answer of `/v1/models`."""

    object: Literal["list"]
    data: list[ModelCard]


class Tokens(Answer):
    """The answer of `/tokenize`."""

    tokens: list[int]
    count: int
    max_model_len: int


class DetokenizedText(Answer):
    """The answer of `/detokenize`."""

    prompt: str


class ErrorFields(Answer):
    """What went wrong; `param` is a field such as `messages[0].role`."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Answer):
    """The body of every error."""

    error: ErrorFields
