"""From a checked request and its prompts' tokens to the sequences that the engine generates.

Pure: defaults, limits and the seed come in as values. Checks here what depends on the model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, TypeVar

from serving_contract.openai import (
    DEFAULT_COMPLETION_TOKENS,
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
)
from serving_runtime.errors import InvalidRequest
from serving_runtime.generation import SequenceSpec
from serving_runtime.model_files import SamplingDefaults
from serving_runtime.request import SamplingParams

MAX_SEQUENCES: Final = 2048
"""Of one request: prompts times choices."""

TokenIds = tuple[int, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTraits:
    """What the model says about requests."""

    max_model_len: int
    vocab_size: int
    eos_token_ids: frozenset[int]
    defaults: SamplingDefaults


def chat_sequences(
    request: ChatRequest, prompt: TokenIds, *, traits: ModelTraits, seed: int
) -> tuple[SequenceSpec, ...]:
    """Return the `n` choices of a chat.

    Raises:
        InvalidRequest: something does not fit the model.
    """
    _check_prompt(prompt, "messages", traits)
    room = traits.max_model_len - len(prompt)
    max_tokens = room if request.output_limit is None else request.output_limit
    _check_output(request, len(prompt), max_tokens, "messages", traits)
    if max_tokens == 0:
        raise InvalidRequest("max_tokens: 0; must be at least 1", param="max_tokens")
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    sampling = _sampling(request, max_tokens=max_tokens, logprobs=logprobs, traits=traits)
    return _choices(request, prompt, sampling, seed)


def completion_sequences(
    request: CompletionRequest, prompts: tuple[TokenIds, ...], *, traits: ModelTraits, seed: int
) -> tuple[SequenceSpec, ...]:
    """Return the choices of a completion: `n` of the first prompt, then of the second ...

    Raises:
        InvalidRequest: something does not fit the model.
    """
    if len(prompts) * (request.n or 1) > MAX_SEQUENCES:
        raise InvalidRequest(
            f"prompt: {len(prompts)} prompts x n {request.n or 1}; "
            f"at most {MAX_SEQUENCES} choices are allowed",
            param="prompt",
        )
    return tuple(
        spec
        for prompt in prompts
        for spec in _completion_choices(request, prompt, traits=traits, seed=seed)
    )


def _completion_choices(
    request: CompletionRequest, prompt: TokenIds, *, traits: ModelTraits, seed: int
) -> tuple[SequenceSpec, ...]:
    _check_prompt(prompt, "prompt", traits)
    room = traits.max_model_len - len(prompt)
    limit = request.output_limit
    max_tokens = min(DEFAULT_COMPLETION_TOKENS, room) if limit is None else limit
    _check_output(request, len(prompt), max_tokens, "prompt", traits)
    scores = bool(request.echo) and request.logprobs is not None
    if max_tokens == 0 and not scores:
        raise InvalidRequest(
            "max_tokens: 0 is only allowed with echo and logprobs", param="max_tokens"
        )
    sampling = _sampling(
        request,
        max_tokens=max_tokens,
        logprobs=request.logprobs,
        prompt_logprobs=request.logprobs if scores else None,
        traits=traits,
    )
    return _choices(request, prompt, sampling, seed)


def _check_prompt(prompt: TokenIds, param: str, traits: ModelTraits) -> None:
    if not prompt:
        raise InvalidRequest(f"{param}: has no tokens; write something", param=param)
    check_token_ids(prompt, param, traits)


def check_token_ids(token_ids: TokenIds, param: str, traits: ModelTraits) -> None:
    """Refuse ids that the model does not have.

    Raises:
        InvalidRequest: names `param` and the first such id.
    """
    unknown = next((i for i in token_ids if not 0 <= i < traits.vocab_size), None)
    if unknown is not None:
        raise InvalidRequest(
            f"{param}: there is no token {unknown}; ids are 0..{traits.vocab_size - 1}", param=param
        )


def _check_output(
    request: GenerationRequest,
    prompt_len: int,
    max_tokens: int,
    prompt_param: str,
    traits: ModelTraits,
) -> None:
    context = traits.max_model_len
    if max_tokens <= 0 and request.output_limit is None:
        raise InvalidRequest(
            f"{prompt_param}: has {prompt_len} tokens, which leaves no room for an answer; "
            f"the context is {context} tokens",
            param=prompt_param,
            code="context_length_exceeded",
        )
    if prompt_len + max_tokens > context:
        raise InvalidRequest(
            f"max_tokens: the prompt has {prompt_len} tokens and max_tokens is {max_tokens}, "
            f"together more than the context of {context} tokens; lower one of them",
            param="max_tokens",
            code="context_length_exceeded",
        )
    if (request.min_tokens or 0) > max_tokens:
        raise InvalidRequest(
            f"min_tokens: {request.min_tokens} is above max_tokens, which is {max_tokens} here",
            param="min_tokens",
        )


def _sampling(
    request: GenerationRequest,
    *,
    max_tokens: int,
    logprobs: int | None,
    traits: ModelTraits,
    prompt_logprobs: int | None = None,
) -> SamplingParams:
    defaults = traits.defaults
    stop_token_ids = tuple(request.stop_token_ids or ())
    check_token_ids(stop_token_ids, "stop_token_ids", traits)
    eos = frozenset(i for i in traits.eos_token_ids if i < traits.vocab_size)
    ends = eos.union(stop_token_ids)
    if request.min_tokens and len(ends) >= traits.vocab_size:
        raise InvalidRequest(
            f"min_tokens: {request.min_tokens}, but every token of the model ends the text",
            param="min_tokens",
        )
    return SamplingParams(
        # A scored prompt passes through the model like any other; its token is thrown away.
        max_tokens=max(1, max_tokens),
        min_tokens=request.min_tokens or 0,
        temperature=_given(request.temperature, defaults.temperature),
        top_k=max(0, min(_given(request.top_k, defaults.top_k), traits.vocab_size)),
        top_p=_given(request.top_p, defaults.top_p),
        min_p=_given(request.min_p, defaults.min_p),
        presence_penalty=_given(request.presence_penalty, 0.0),
        frequency_penalty=_given(request.frequency_penalty, 0.0),
        repetition_penalty=_given(request.repetition_penalty, defaults.repetition_penalty),
        eos_token_ids=frozenset() if request.ignore_eos else eos,
        stop_token_ids=frozenset(stop_token_ids),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        logit_bias=_logit_bias(request, traits),
    )


def _given(value: T | None, default: T) -> T:
    return default if value is None else value


def _logit_bias(request: GenerationRequest, traits: ModelTraits) -> tuple[tuple[int, float], ...]:
    biases = {int(token): bias for token, bias in (request.logit_bias or {}).items()}
    check_token_ids(tuple(biases), "logit_bias", traits)
    return tuple(biases.items())


def _choices(
    request: GenerationRequest, prompt: TokenIds, sampling: SamplingParams, seed: int
) -> tuple[SequenceSpec, ...]:
    """Give choice j the seed `seed + j`, within 64 bits."""
    return tuple(
        SequenceSpec(
            prompt_token_ids=prompt,
            sampling=replace(sampling, seed=_int64(seed + choice)),
            stop_strings=tuple(request.stop),
            include_stop_string=bool(request.include_stop_str_in_output),
            skip_special_tokens=_given(request.skip_special_tokens, True),
            scores_only=request.output_limit == 0,
        )
        for choice in range(request.n or 1)
    )


def _int64(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63
