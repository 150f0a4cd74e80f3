"""A JSON body as a pydantic model, with errors that name the field."""

from __future__ import annotations

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from serving_http.errors import ApiError

M = TypeVar("M", bound=BaseModel)


async def read_json(request: Request, model: type[M]) -> M:
    """Read the body.

    Raises:
        ApiError: 400, naming the first field that is wrong.
    """
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise invalid_body(error) from None


def invalid_body(error: ValidationError) -> ApiError:
    """Turn the first complaint of pydantic into a 400."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", first["msg"])
        return ApiError(400, f"the body is not valid JSON: {reason}")
    param = field_path(first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{param}: {message}" if param else message, param=param or None)


def field_path(location: tuple[int | str, ...]) -> str:
    """Write a pydantic location as users do: `("messages", 0, "role")` is `messages[0].role`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")
