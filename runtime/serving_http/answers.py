"""Errors as ASGI messages and as responses."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Send

from serving_http.errors import ApiError


def error_response(error: ApiError) -> Response:
    """Return the error as a response."""
    return Response(
        error.body(), error.status, headers=error.headers, media_type="application/json"
    )


async def send_error(error: ApiError, send: Send) -> None:
    """Answer with the error from a middleware."""
    response = error_response(error)
    start = {"type": "http.response.start", "status": error.status, "headers": response.raw_headers}
    await send(start)
    await send({"type": "http.response.body", "body": response.body})
