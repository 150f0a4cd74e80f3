"""What `/openapi.json` says of the proxied endpoints, whose bodies no route here parses."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from pydantic import BaseModel, JsonValue
from pydantic.json_schema import models_json_schema

from serving_contract.openai import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from serving_contract.openai_answers import (
    ChatCompletion,
    Completion,
    DetokenizedText,
    ErrorAnswer,
    Tokens,
)
from serving_router.call import Route

REQUESTS: Final[dict[Route, type[BaseModel]]] = {
    Route.CHAT: ChatRequest,
    Route.COMPLETIONS: CompletionRequest,
    Route.TOKENIZE: TokenizeRequest,
    Route.DETOKENIZE: DetokenizeRequest,
}
ANSWERS: Final[dict[Route, type[BaseModel]]] = {
    Route.CHAT: ChatCompletion,
    Route.COMPLETIONS: Completion,
    Route.TOKENIZE: Tokens,
    Route.DETOKENIZE: DetokenizedText,
}
ERRORS: Final[dict[int | str, dict[str, object]]] = {
    "4XX": {"model": ErrorAnswer, "description": "the request is at fault"},
    "5XX": {"model": ErrorAnswer, "description": "the service is at fault"},
}
_REF: Final = "#/components/schemas/{model}"


def request_body(route: Route) -> dict[str, JsonValue]:
    """Return the operation's `requestBody`."""
    schema: JsonValue = {"$ref": _REF.format(model=REQUESTS[route].__name__)}
    content: JsonValue = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def add_request_schemas(app: FastAPI) -> None:
    """Make the application's schema hold the models that `request_body` refers to."""
    generate = app.openapi

    def with_requests() -> dict[str, JsonValue]:
        schema = generate()
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        _, definitions = models_json_schema(
            [(model, "validation") for model in REQUESTS.values()], ref_template=_REF
        )
        schemas.update(definitions["$defs"])
        return schema

    app.openapi = with_requests  # type: ignore[method-assign]
