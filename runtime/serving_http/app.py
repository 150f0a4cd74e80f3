"""The FastAPI application that both servers start from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response

from serving_http.answers import error_response
from serving_http.auth import ApiKeys, RequireApiKey
from serving_http.body import field_path
from serving_http.errors import ApiError
from serving_http.request_id import AssignRequestId, request_id

__all__ = ["create_app", "request_id"]

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(*, title: str, lifespan: Lifespan, api_keys: ApiKeys | None) -> FastAPI:
    """Make an application with OpenAI's errors, request ids, keys and docs that need no internet.

    Args:
        title: shown in the docs.
        lifespan: what runs around the application.
        api_keys: valid keys; None leaves every path open.
    """
    middleware = [Middleware(AssignRequestId)]
    if api_keys is not None:
        middleware.append(Middleware(RequireApiKey, keys=api_keys))
    app: FastAPI = FastAPIOffline(
        title=title,
        redoc_url=None,
        lifespan=lifespan,
        middleware=middleware,
        exception_handlers={
            ApiError: _on_api_error,
            HTTPException: _on_http_exception,
            RequestValidationError: _on_validation_error,
        },
    )
    return app


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Unknown paths and wrong methods; the `Allow` header is kept."""
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    messages = {
        404: f"there is no {path} here",
        405: f"{path} does not take {method}",
    }
    message = messages.get(error.status_code, str(error.detail))
    return error_response(ApiError(error.status_code, message, headers=error.headers))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    """Wrong query or path parameters: 400, never FastAPI's own 422."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = field_path(tuple(first["loc"][1:]))
    return error_response(ApiError(400, f"{param}: {first['msg']}", param=param or None))
