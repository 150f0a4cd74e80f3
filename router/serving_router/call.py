"""What the router has to know of a request's body: its model, and what it may cost.

Everything else in the body is the replica's to judge; numbers that make no sense are read as absent
here and refused there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import orjson

from serving_http.errors import ApiError

_MAX_CHOICES: Final = 128
_MAX_TOKENS: Final = 1 << 31
_COMPLETION_MAX_TOKENS: Final = 16
"""What `max_tokens` is on completions when it is absent."""


class Route(StrEnum):
    """The proxied endpoints whose body names a model."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    TOKENIZE = "/tokenize"
    DETOKENIZE = "/detokenize"

    @property
    def generates(self) -> bool:
        """Whether it costs tokens, and so names its model."""
        return self in (Route.CHAT, Route.COMPLETIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request for tokens.

    Attributes:
        prompt_tokens: of all prompts together, if they came as token ids; else None.
        max_tokens: of one sequence; None = as far as the context goes.
        choices: `n`, for each of the `prompts`.
    """

    route: Route
    model: str | None
    prompt_bytes: int
    prompt_tokens: int | None = None
    max_tokens: int | None = None
    choices: int = 1
    prompts: int = 1

    @property
    def sequences(self) -> int:
        """Return how many answers there will be."""
        return self.choices * self.prompts


def parse_call(route: Route, body: bytes) -> Call:
    """Read a request's body.

    Raises:
        ApiError: 400 when it is not a JSON object, or `model` is not a string or is missing.
    """
    fields = _parse_object(body)
    model = fields.get("model")
    if not isinstance(model, str) and (model is not None or route.generates):
        problem = "Field required" if model is None else "Input should be a valid string"
        raise ApiError(400, f"model: {problem}", param="model")
    if not route.generates:
        return Call(route=route, model=model, prompt_bytes=len(body))
    prompts, prompt_tokens = _measure_prompts(fields.get("prompt"))
    return Call(
        route=route,
        model=model,
        prompt_bytes=len(body),
        prompt_tokens=prompt_tokens,
        max_tokens=_max_tokens(route, fields),
        choices=_count(fields.get("n"), _MAX_CHOICES) or 1,
        prompts=prompts,
    )


def _parse_object(body: bytes) -> Mapping[str, object]:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"the body is not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ApiError(400, "the body must be a JSON object")
    return fields


def _measure_prompts(prompt: object) -> tuple[int, int | None]:
    """Return how many prompts there are, and their tokens if they are token ids."""
    match prompt:
        case [int(), *_]:
            return 1, len(prompt)
        case [[int(), *_], *_]:
            return len(prompt), sum(len(ids) for ids in prompt if isinstance(ids, list))
        case [_, *_]:
            return len(prompt), None
        case _:
            return 1, None


def _max_tokens(route: Route, fields: Mapping[str, object]) -> int | None:
    """Return at least 1: scoring, which asks for 0, is work as well."""
    for name in ("max_completion_tokens", "max_tokens"):
        if (value := _count(fields.get(name), _MAX_TOKENS)) is not None:
            return max(1, value)
    return _COMPLETION_MAX_TOKENS if route is Route.COMPLETIONS else None


def _count(value: object, highest: int) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return min(value, highest)
    return None
