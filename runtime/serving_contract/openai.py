"""What clients send to the OpenAI API, checked field by field, and the answers' shapes.

Types are strict (a string is no number, a boolean no integer). Fields that OpenAI defines and we
do not implement are refused unless they are null or without effect; fields nobody knows are
ignored. Limits that depend on the model (its context, its vocabulary) are the engine's to check.

Source: the published OpenAI API reference, and vLLM's documentation for the fields beyond it.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

MAX_CHOICES: Final = 128
MAX_PROMPTS: Final = 2048
MAX_STOP_STRINGS: Final = 16
MAX_TOP_LOGPROBS: Final = 20
MAX_LOGIT_BIAS: Final = 100.0
MAX_TOKEN_ID: Final = 2**31 - 1
"""Of any model; the engine knows its own vocabulary."""
DEFAULT_COMPLETION_TOKENS: Final = 16

_TOKEN_ID: Final = re.compile(r"0|[1-9][0-9]{0,9}")

Prompt = str | tuple[int, ...]
"""Text, or token ids that are taken as they are."""


def _refuse(message: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": message})


def _only(*harmless: JsonValue) -> AfterValidator:
    """Refuse a field that we do not implement unless its value changes nothing."""

    def check(value: JsonValue) -> JsonValue:
        # 1 == True in Python, but not in JSON.
        if any(value == known and type(value) is type(known) for known in (None, *harmless)):
            return value
        raise _refuse("not implemented; leave it out")

    return AfterValidator(check)


def _is_list_of(kind: type, value: object) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def _stop_strings(value: object) -> list[str]:
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not _is_list_of(str, strings):
        raise _refuse("must be a string or a list of strings")
    if len(strings) > MAX_STOP_STRINGS:
        raise _refuse(f"{len(strings)} strings; at most {MAX_STOP_STRINGS} are allowed")
    if "" in strings:
        raise _refuse("an empty string would stop everything; leave it out")
    return strings


def _prompts(value: object) -> tuple[Prompt, ...]:
    prompts = value if isinstance(value, list) and not _is_list_of(int, value) else [value]
    if value == [] or prompts == [[]]:
        raise _refuse("must not be empty")
    if len(prompts) > MAX_PROMPTS:
        raise _refuse(f"{len(prompts)} prompts; at most {MAX_PROMPTS} are allowed")
    return tuple(_prompt(prompt) for prompt in prompts)


def _prompt(value: object) -> Prompt:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and _is_list_of(int, value):
        if not value:
            raise _refuse("a list of token ids must not be empty")
        if unknown := [token for token in value if not 0 <= token <= MAX_TOKEN_ID]:
            raise _refuse(f"there is no token {unknown[0]}")
        return tuple(value)
    raise _refuse("must be a string, a list of strings, token ids, or a list of token id lists")


def _joined_text(value: object) -> str:
    """Join text parts by a line break; one part equals the plain string."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise _refuse("must be a string or a list of text parts")
    return "\n".join(_part_text(part, f"part {i}") for i, part in enumerate(value))


def _part_text(part: object, name: str) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": str(kind)} if kind != "text":
            raise _refuse(f"{name} is of type {kind!r}; only text parts are supported")
        case _:
            raise _refuse(f'{name} must be {{"type": "text", "text": "..."}}')


def _logit_bias(value: dict[str, float] | None) -> dict[str, float] | None:
    for token, bias in (value or {}).items():
        if not _TOKEN_ID.fullmatch(token):
            raise _refuse(f"{token[:20]!r} is not a token id")
        if abs(bias) > MAX_LOGIT_BIAS:
            raise _refuse(f"{bias:g} for token {token} is outside -100..100")
    return value


def _top_k(value: int | None) -> int | None:
    if value is not None and value < -1:
        raise _refuse(f"{value} is neither -1 or 0 (off) nor at least 1")
    return value


class Wire(BaseModel):
    """Base of everything that clients send."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


Unimplemented = Annotated[JsonValue, _only()]
StopStrings = Annotated[
    list[str],
    PlainValidator(lambda value: [] if value is None else _stop_strings(value)),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Prompts = Annotated[
    tuple[Prompt, ...],
    PlainValidator(_prompts),
    WithJsonSchema({"description": "a string, token ids, or a list of either"}),
]
Text = Annotated[str, BeforeValidator(_joined_text)]
Penalty = Annotated[float, Field(ge=-2, le=2)] | None
TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]


class StreamOptions(Wire):
    """What a stream carries besides its choices."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[JsonValue, _only(False)] = None


class GenerationRequest(Wire):
    """The fields that chat and completions share. None: the default of the model or of the API."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: StopStrings = []
    stop_token_ids: list[TokenId] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int | None, AfterValidator(_top_k)] = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=0)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    presence_penalty: Penalty = None
    frequency_penalty: Penalty = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    logit_bias: Annotated[dict[str, float] | None, AfterValidator(_logit_bias)] = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    return_token_ids: bool | None = None
    add_special_tokens: bool | None = None

    @field_validator("stream_options")
    @classmethod
    def _needs_stream(
        cls, value: StreamOptions | None, info: ValidationInfo
    ) -> StreamOptions | None:
        if value is not None and not info.data.get("stream"):
            raise _refuse("only allowed when stream is true")
        return value

    @field_validator("max_completion_tokens")
    @classmethod
    def _equals_max_tokens(cls, value: int | None, info: ValidationInfo) -> int | None:
        other = info.data.get("max_tokens")
        if value is not None and other is not None and value != other:
            raise _refuse(f"{value} contradicts max_tokens {other}; give only one of them")
        return value

    @field_validator("min_tokens")
    @classmethod
    def _fits_max_tokens(cls, value: int | None, info: ValidationInfo) -> int | None:
        limits = (info.data.get("max_tokens"), info.data.get("max_completion_tokens"))
        limit = next((limit for limit in limits if limit is not None), None)
        if value is not None and limit is not None and value > limit:
            raise _refuse(f"{value} is above max_tokens {limit}")
        return value

    @property
    def output_limit(self) -> int | None:
        """`max_tokens` under either of its names."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def include_usage(self) -> bool:
        """Whether the last chunk of a stream carries the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class Message(Wire):
    """One message of a chat, as the chat template sees it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text
    name: str | None = None
    tool_calls: Annotated[JsonValue, _only([])] = None
    tool_call_id: Unimplemented = None
    function_call: Unimplemented = None
    audio: Unimplemented = None
    refusal: Unimplemented = None


class ChatRequest(GenerationRequest):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    tools: Annotated[JsonValue, _only([])] = None
    tool_choice: Annotated[JsonValue, _only("none", "auto")] = None
    parallel_tool_calls: Annotated[JsonValue, _only(True, False)] = None
    functions: Annotated[JsonValue, _only([])] = None
    function_call: Annotated[JsonValue, _only("none", "auto")] = None
    response_format: Annotated[JsonValue, _only({"type": "text"})] = None
    modalities: Annotated[JsonValue, _only(["text"])] = None
    audio: Unimplemented = None
    prediction: Unimplemented = None
    reasoning_effort: Unimplemented = None
    verbosity: Annotated[JsonValue, _only("medium")] = None
    web_search_options: Unimplemented = None

    @field_validator("top_logprobs")
    @classmethod
    def _needs_logprobs(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and not info.data.get("logprobs"):
            raise _refuse("only allowed when logprobs is true")
        return value

    @field_validator("continue_final_message")
    @classmethod
    def _excludes_generation_prompt(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        if value and info.data.get("add_generation_prompt"):
            raise _refuse("not allowed together with add_generation_prompt")
        return value


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`."""

    prompt: Prompts
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    suffix: Annotated[JsonValue, _only("")] = None
    best_of: JsonValue = None

    @field_validator("best_of")
    @classmethod
    def _equals_n(cls, value: JsonValue, info: ValidationInfo) -> JsonValue:
        n = info.data.get("n") or 1
        if value is None or (type(value) is int and value == n):
            return value
        raise _refuse(f"not implemented; leave it out or let it equal n, which is {n}")


class TokenizeRequest(Wire):
    """`POST /tokenize`: a prompt, or messages that the chat template writes."""

    model: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    prompt: Annotated[str | None, Field(validate_default=True)] = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None

    @field_validator("prompt")
    @classmethod
    def _one_of_two(cls, value: str | None, info: ValidationInfo) -> str | None:
        if (value is None) == (info.data.get("messages") is None):
            raise _refuse("give either prompt or messages")
        return value


class DetokenizeRequest(Wire):
    """`POST /detokenize`."""

    model: str | None = None
    tokens: list[TokenId]
