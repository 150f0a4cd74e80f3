"""The request bodies in `/openapi.json`, which FastAPI cannot see: `read_json` reads them."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from pydantic import BaseModel, JsonValue
from pydantic.json_schema import models_json_schema

REF_TEMPLATE: Final = "#/components/schemas/{model}"


def json_body(model: type[BaseModel]) -> dict[str, JsonValue]:
    """Return the OpenAPI description of a body, for a route's `openapi_extra`."""
    reference: JsonValue = {"$ref": REF_TEMPLATE.format(model=model.__name__)}
    content: JsonValue = {"application/json": {"schema": reference}}
    return {"requestBody": {"required": True, "content": content}}


def add_schemas(app: FastAPI, models: list[type[BaseModel]]) -> None:
    """Add the models that `json_body` refers to."""
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template=REF_TEMPLATE
    )
    components = app.openapi().setdefault("components", {})
    components.setdefault("schemas", {}).update(definitions["$defs"])
