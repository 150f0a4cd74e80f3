"""From the JSON schema of a model to the structural schema that a CRD may hold. Pure.

Apart from the CRD around it, because this half is mechanical: references are inlined, "or null"
becomes "may be absent", and every block of fields that may be absent gets the defaults of its
fields spelled out, because the API server gives defaults only inside what is there.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from pydantic import BaseModel, JsonValue

Schema: TypeAlias = dict[str, JsonValue]

# In the order in which people read a schema; what is inside comes last.
_KEPT: Final = (
    "description",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "format",
    "enum",
    "default",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "maxProperties",
    "x-kubernetes-validations",
    "required",
    "properties",
    "additionalProperties",
    "items",
)
_DROPPED: Final = frozenset({"title", "$defs"})
_NULL: Final[Schema] = {"type": "null"}


def structural_schema(model: type[BaseModel]) -> Schema:
    """Return the structural schema of a model, defaults included."""
    schema = model.model_json_schema()
    return _converted(schema, schema.get("$defs", {}))


def without_defaults(schema: Schema) -> Schema:
    """Return the schema of what is only ever written whole, such as a status."""
    kept = {keyword: value for keyword, value in schema.items() if keyword != "default"}
    if "properties" in kept:
        properties = _block(kept["properties"])
        kept["properties"] = {
            name: without_defaults(_block(properties[name])) for name in properties
        }
    if "items" in kept:
        kept["items"] = without_defaults(_block(kept["items"]))
    return kept


def _converted(schema: Schema, types: Schema) -> Schema:
    inlined = _inlined(schema, types)
    said = {word: value for word, value in inlined.items() if not _says_nothing(word, value)}
    assert said.keys() <= set(_KEPT), f"{said.keys() - set(_KEPT)} have no structural form"
    return {word: _keyword(word, said, types) for word in _KEPT if word in said}


def _keyword(word: str, schema: Schema, types: Schema) -> JsonValue:
    value = schema[word]
    match word:
        case "properties":
            return _properties(schema, types)
        case "items" | "additionalProperties":
            return _converted(_block(value), types)
        case "description":
            return " ".join(str(value).split())
        case _:
            return value


def _says_nothing(keyword: str, value: JsonValue) -> bool:
    """Unknown fields are pruned, or refused if the client asks for it, by the API server itself."""
    return keyword in _DROPPED or (keyword == "additionalProperties" and value is False)


def _inlined(schema: Schema, types: Schema) -> Schema:
    """Return the schema without reference and without null; what stands beside them wins."""
    beside = {
        keyword: value for keyword, value in schema.items() if keyword not in {"$ref", "anyOf"}
    }
    if "$ref" in schema:
        name = str(schema["$ref"]).removeprefix("#/$defs/")
        return {**_inlined(_block(types[name]), types), **beside}
    if "anyOf" in schema:
        return {**_inlined(_only_form(schema["anyOf"]), types), **_unless_null(beside)}
    return beside


def _only_form(forms: JsonValue) -> Schema:
    assert isinstance(forms, list), "anyOf is a list"
    (form,) = (_block(form) for form in forms if form != _NULL)
    return form


def _unless_null(schema: Schema) -> Schema:
    return {
        keyword: value
        for keyword, value in schema.items()
        if not (keyword == "default" and value is None)
    }


def _properties(schema: Schema, types: Schema) -> Schema:
    required = schema.get("required", [])
    assert isinstance(required, list), "required is a list"
    properties = _block(schema["properties"])
    return {
        name: _property(_block(properties[name]), types, is_required=name in required)
        for name in properties
    }


def _property(schema: Schema, types: Schema, *, is_required: bool) -> Schema:
    converted = _converted(schema, types)
    if is_required or "default" in schema:
        return converted
    whole = {**converted, "default": _defaults_of(converted)}
    return {word: whole[word] for word in _KEPT if word in whole}


def _defaults_of(schema: Schema) -> JsonValue:
    """Return the default of a block that may be absent: what its fields default to."""
    assert schema["type"] == "object", "pydantic spells out the default of whatever is no block"
    properties = _block(schema.get("properties", {}))
    fields = {name: _block(properties[name]) for name in properties}
    return {name: field["default"] for name, field in fields.items() if "default" in field}


def _block(value: JsonValue) -> Schema:
    assert isinstance(value, dict), "a schema is an object"
    return value
