"""Reads Kubernetes objects as they come: plain dicts, because typed models drop unknown fields.

Every reader takes whatever is there: an object written by somebody else may have any shape.
"""

from __future__ import annotations

from collections.abc import Mapping

Body = dict[str, object]


def at(body: object, *path: str) -> object:
    """Return the value at a path of keys; None if any of them is missing."""
    for key in path:
        if not isinstance(body, Mapping):
            return None
        body = body.get(key)
    return body


def text(body: object, *path: str) -> str:
    """Return the string at a path; empty if there is none."""
    value = at(body, *path)
    return value if isinstance(value, str) else ""


def number(body: object, *path: str) -> int:
    """Return the integer at a path; 0 if there is none."""
    value = at(body, *path)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def fields(body: object, *path: str) -> Mapping[str, object]:
    """Return the map at a path; empty if there is none."""
    value = at(body, *path)
    return value if isinstance(value, Mapping) else {}


def items(body: object, *path: str) -> list[Mapping[str, object]]:
    """Return the maps of the list at a path; empty if there is none."""
    value = at(body, *path)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
