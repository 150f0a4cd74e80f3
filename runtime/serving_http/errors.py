"""OpenAI's error object, raised as an exception wherever a request is handled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

_TYPES = {
    401: "authentication_error",
    403: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def error_type(status: int) -> str:
    """Return OpenAI's `type` for an HTTP status."""
    if status >= 500:
        return "server_error"
    return _TYPES.get(status, "invalid_request_error")


class ApiError(Exception):
    """An answer of the form `{"error": {message, type, param, code}}`.

    Args:
        status: HTTP status; it decides `type` unless that is given.
        message: one line for the user.
        type: OpenAI's error type.
        param: the request field at fault, such as `messages[0].role`.
        code: a stable name for programs.
        headers: further response headers, such as `Retry-After`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,  # noqa: A002 - the field's own name
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type or error_type(status)
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Return the JSON object."""
        fields = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": fields}, ensure_ascii=False).encode(errors="replace")

    def sse(self) -> bytes:
        """Return the error as an event, for streams that have begun."""
        return b"data: " + self.body() + b"\n\n"


def model_not_found(name: str, served: Iterable[str]) -> ApiError:
    """Return the 404 for a model of another name."""
    names = ", ".join(repr(known) for known in sorted(served))
    return ApiError(
        404,
        f"model: {name!r} is not served here; {names} is",
        param="model",
        code="model_not_found",
    )
