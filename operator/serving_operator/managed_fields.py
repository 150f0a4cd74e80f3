"""Compares what we mean with what server-side apply says that we own (KEP-555).

An edit by somebody else takes the field away from us, and a field that we no longer mean stays
ours until we apply again. So ownership alone tells that an apply is due, and no value has to be
compared, which defaulting and canonical quantities would make guesswork.
"""

from __future__ import annotations

import json
from collections.abc import Mapping


def covers_exactly(owned: Mapping[str, object], meant: object) -> bool:
    """Return whether FieldsV1 names each field of `meant` and no other.

    A field without anything below it is owned whole: a scalar, or a list or map that is atomic.
    """
    below = {key: value for key, value in owned.items() if key != "."}
    if not below:
        return True
    if isinstance(meant, Mapping):
        return _covers_map(below, meant)
    return isinstance(meant, list) and _covers_list(below, meant)


def _covers_map(owned: Mapping[str, object], meant: Mapping[str, object]) -> bool:
    if owned.keys() != {f"f:{key}" for key in meant}:
        return False
    return all(covers_exactly(_map(owned[f"f:{key}"]), value) for key, value in meant.items())


def _covers_list(owned: Mapping[str, object], meant: list[object]) -> bool:
    if len(owned) != len(meant):
        return False
    return all(_covers_element(key, _map(value), meant) for key, value in owned.items())


def _covers_element(key: str, owned: Mapping[str, object], meant: list[object]) -> bool:
    kind, _, written = key.partition(":")
    identity = json.loads(written)
    if kind == "v":
        return identity in meant
    return any(
        isinstance(element, Mapping)
        # A key that we leave to its default is in the identity all the same.
        and all(element.get(name, value) == value for name, value in identity.items())
        and covers_exactly(_without_defaulted(owned, element, identity), element)
        for element in meant
    )


def _without_defaulted(
    owned: Mapping[str, object], element: Mapping[str, object], identity: Mapping[str, object]
) -> Mapping[str, object]:
    left_out = {f"f:{name}" for name in identity if name not in element}
    return {key: value for key, value in owned.items() if key not in left_out}


def _map(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
