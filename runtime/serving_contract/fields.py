"""The kinds of values that the fields of a ServingDeployment hold, each with its limits.

Apart from the deployment, which says what each field means; here is what may stand in it. Whatever
a cluster would refuse later, in a pod or a Service made from it, is refused here, by its field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

from serving_contract.kubernetes import CPU_RESOURCE, DEFAULT_RESOURCE, GROUP, MAX_NAME_LENGTH
from serving_contract.rules import VALIDATIONS, KeysMatch, Matches, Rule
from serving_contract.topology import MAX_DATA_PARALLEL_SIZE

NAME_PATTERN: Final = "[a-z]([-a-z0-9]*[a-z0-9])?"
MAX_INTEGER: Final = 2**31 - 1
"""What Kubernetes counts in; `format: int32` alone would not hold the API server to it."""

_SUBDOMAIN: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*"
_QUALIFIED: Final = "[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_VISIBLE: Final = r"[^\x00-\x20\x7f]"
_PART: Final = r"[^/\x00-\x20\x7f]+"
_ABSOLUTE: Final = f"(?:/{_PART})+"
_CLAIM: Final = f"pvc://{_SUBDOMAIN}(?:/{_PART})*"
_HUB: Final = "hf://[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+(?:@[A-Za-z0-9_./-]+)?"
_PERCENT: Final = "(?:100|[1-9]?[0-9])%"

_URI: Final = Matches(
    f"{_ABSOLUTE}|{_CLAIM}|{_HUB}",
    "must be /abs/path, pvc://CLAIM[/sub/path] or hf://ORG/NAME[@REVISION], without '..'",
    but_not=r"(?:^|/)\.\.(?:/|$)",
)
_SERVED_NAME: Final = Matches(
    f"[^-\\x00-\\x20\\x7f]{_VISIBLE}*",
    "must be visible characters without spaces and must not begin with '-'",
)
_SECRET_NAME: Final = Matches(
    _SUBDOMAIN, "must be the name of a Secret: lower case letters, digits, '-' and '.'"
)
_IMAGE: Final = Matches("[!-~]+", "must be an image reference: ASCII without spaces")
# As the API server takes extended resources: it puts "requests." before the name for quotas, and
# whatever is of kubernetes.io is its own.
_RESOURCE_NAME: Final = Matches(
    f"{CPU_RESOURCE}|{_SUBDOMAIN}/{_QUALIFIED}",
    f"must be {CPU_RESOURCE} or the full name of an extended resource such as {DEFAULT_RESOURCE}",
    but_not=r"^requests\.|kubernetes\.io/",
)
_FRACTION: Final = Matches(
    r"0?\.[0-9]*[1-9][0-9]*|1(?:\.0+)?",
    'must be a decimal string above 0 and at most 1, such as "0.9"',
)
_ANNOTATION: Final = Matches(
    f"(?:{_SUBDOMAIN.replace('a-z', 'A-Za-z')}/)?{_QUALIFIED}",
    f"must have keys such as example.com/name, none of {GROUP}/",
    but_not=f"^(?i:{re.escape(GROUP)})/",
)
_INT_OR_PERCENT: Final = Rule(
    cel=(
        f"type(self) == int ? self >= 0 && self <= {MAX_DATA_PARALLEL_SIZE} "
        f": self.matches(r'^{_PERCENT}$')"
    ),
    message=f"must be an integer from 0 to {MAX_DATA_PARALLEL_SIZE} or a percentage such as 25%",
)


def check_name(name: str) -> str:
    """Return the name of a ServingDeployment.

    Raises:
        ValueError: names made from it would not be names.
    """
    if len(name) > MAX_NAME_LENGTH or not re.fullmatch(NAME_PATTERN, name):
        raise ValueError(
            f"must be a DNS label of at most {MAX_NAME_LENGTH} characters that begins with a letter"
        )
    return name


def _int_or_percent(value: object) -> object:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if is_integer and value in range(MAX_DATA_PARALLEL_SIZE + 1):
        return value
    if isinstance(value, str) and re.fullmatch(_PERCENT, value):
        return value
    raise ValueError(_INT_OR_PERCENT.message)


def _as_stored(value: object) -> object:
    """Return members as the API server stores them: null means absent, and 2.0 is 2."""
    if not isinstance(value, Mapping):
        return value
    return {name: _whole(member) for name, member in value.items() if member is not None}


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, Field(strict=True, le=MAX_INTEGER)]
Count = Annotated[Integer, Field(ge=0)]
PositiveInt = Annotated[Integer, Field(ge=1)]
IntOrPercent = Annotated[
    int | str,
    BeforeValidator(_int_or_percent),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "maxLength": len("100%"),
            VALIDATIONS: [_INT_OR_PERCENT.to_schema()],
        }
    ),
]
ModelUri = Annotated[str, Field(max_length=1024), _URI]
ServedName = Annotated[str, Field(min_length=1, max_length=253), _SERVED_NAME]
SecretName = Annotated[str, Field(min_length=1, max_length=253), _SECRET_NAME]
Image = Annotated[str, Field(min_length=1, max_length=1024), _IMAGE]
ResourceName = Annotated[str, Field(min_length=1, max_length=244), _RESOURCE_NAME]
Fraction = Annotated[str, Field(max_length=16), _FRACTION]
HeaderName = Annotated[str, Field(max_length=128, pattern="^[A-Za-z0-9-]+$")]
Arguments = Annotated[
    tuple[Annotated[str, Field(max_length=16_384)], ...],
    Field(max_length=256),
]
Annotations = Annotated[
    dict[str, Annotated[str, Field(max_length=2048)]],
    Field(max_length=64),
    KeysMatch(_ANNOTATION, max_length=253),
    BeforeValidator(_as_stored),
]
PodTemplate = Annotated[
    dict[str, JsonValue],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""A PodTemplateSpec laid over ours. A plain dict: typed models silently drop unknown fields."""


class Fields(BaseModel):
    """A block of fields: camelCase outside, described by docstrings, never changed."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _as_stored(cls, value: object) -> object:
        return _as_stored(value)
