"""API keys: bearer tokens that open the OpenAI endpoints."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from serving_http.answers import send_error
from serving_http.errors import ApiError

PROTECTED_PREFIX = "/v1/"
PROTECTED_PATHS = frozenset({"/tokenize", "/detokenize"})


class ApiKeys(Protocol):
    """The keys that are valid now; a source may change them while it is in use."""

    def current(self) -> Iterable[str]:
        """Return every valid key."""
        ...


class FixedApiKeys:
    """Keys that were given at the start."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = tuple(keys)

    def current(self) -> tuple[str, ...]:
        """Return every valid key."""
        return self._keys


def accepts(keys: ApiKeys, token: bytes) -> bool:
    """Compare with every key in constant time, so that timing tells nothing about them."""
    matches = [hmac.compare_digest(token, _bytes(key)) for key in keys.current()]
    return any(matches)


def _bytes(key: str) -> bytes:
    """Encode a key; one from a file may hold any bytes."""
    return key.encode(errors="surrogateescape")


def is_protected(path: str) -> bool:
    """Return whether a path needs a key when keys are set."""
    return path.startswith(PROTECTED_PREFIX) or path in PROTECTED_PATHS


class RequireApiKey:
    """ASGI middleware: 401 for protected paths without a valid key."""

    def __init__(self, app: ASGIApp, *, keys: ApiKeys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_protected(scope["path"]):
            token = _bearer_token(scope)
            if token is None or not accepts(self._keys, token):
                await send_error(_refusal(token), send)
                return
        await self._app(scope, receive, send)


def _bearer_token(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            return token.strip() if scheme.lower() == b"bearer" and token.strip() else None
    return None


def _refusal(token: bytes | None) -> ApiError:
    message = "the API key is not valid" if token else "an API key is required"
    return ApiError(
        401,
        f"{message}: send it as `Authorization: Bearer KEY`",
        code="invalid_api_key",
        headers={"www-authenticate": "Bearer"},
    )
