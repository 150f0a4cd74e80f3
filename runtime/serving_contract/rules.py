"""A check of a field, written once for both that make it: Python and the API server.

Apart from the fields, because each check is two things that must not drift apart: a validator for
files and stored objects, and CEL (or a pattern) in the schema that the API server enforces. CEL
knows RE2, so patterns keep to what RE2 and `re` read alike: explicit classes of ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, JsonValue
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

VALIDATIONS: Final = "x-kubernetes-validations"

Reason = Literal["FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What the API server checks in CEL, where `self` is the value that has the rule.

    Attributes:
        field: what a refusal names, from `self`; absent: `self` itself.
    """

    cel: str
    message: str
    field: str | None = None
    reason: Reason = "FieldValueInvalid"

    def to_schema(self) -> dict[str, JsonValue]:
        """Return the rule as an element of `x-kubernetes-validations`."""
        rule: dict[str, JsonValue] = {"rule": self.cel, "message": self.message}
        if self.reason != "FieldValueInvalid":
            rule["reason"] = self.reason
        return rule if self.field is None else {**rule, "fieldPath": f".{self.field}"}


def checked_by(*rules: Rule) -> ConfigDict:
    """Return the configuration of a model whose fields must fit together."""
    return ConfigDict(json_schema_extra={VALIDATIONS: [rule.to_schema() for rule in rules]})


@dataclass(frozen=True, slots=True)
class Matches:
    """A string that matches `pattern` as a whole, and `but_not` nowhere."""

    pattern: str
    message: str
    but_not: str | None = None

    def accepts(self, text: str) -> bool:
        """Return whether a string passes."""
        is_excluded = self.but_not is not None and re.search(self.but_not, text) is not None
        return re.fullmatch(self.pattern, text) is not None and not is_excluded

    def cel(self, subject: str) -> str:
        """Return the same as an expression about `subject`."""
        matches = f"{subject}.matches({_quoted(f'^(?:{self.pattern})$')})"
        if self.but_not is None:
            return matches
        return f"{matches} && !{subject}.matches({_quoted(self.but_not)})"

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return _with_rule(handler(core), Rule(cel=self.cel("self"), message=self.message))

    def _checked(self, text: str) -> str:
        if not self.accepts(text):
            raise ValueError(self.message)
        return text


@dataclass(frozen=True, slots=True)
class KeysMatch:
    """A map of which every key passes a check and is at most `max_length` long."""

    key: Matches
    max_length: int

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        cel = f"self.all(key, key.size() <= {self.max_length} && {self.key.cel('key')})"
        return _with_rule(handler(core), Rule(cel=cel, message=self.key.message))

    def _checked(self, value: Mapping[str, str]) -> Mapping[str, str]:
        for key in value:
            if len(key) > self.max_length or not self.key.accepts(key):
                raise ValueError(self.key.message)
        return value


def _with_rule(schema: JsonSchemaValue, rule: Rule) -> JsonSchemaValue:
    return {**schema, VALIDATIONS: [*schema.get(VALIDATIONS, ()), rule.to_schema()]}


def _quoted(pattern: str) -> str:
    assert "'" not in pattern, "a raw string of CEL cannot hold its own quote"
    return f"r'{pattern}'"
