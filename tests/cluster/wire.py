"""The wire format of protocol buffers, as far as the kubelet's device plugin API needs it.

A message is a list of fields, each a number with its content: text, a number, or a message in
turn. See https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

_NUMBER: Final = 0
_BYTES: Final = 2


def encode(*fields: tuple[int, str | bytes | int]) -> bytes:
    """Return a message; an encoded message is given as bytes."""
    return b"".join(_field(number, content) for number, content in fields)


def decode(message: bytes) -> dict[int, list[bytes | int]]:
    """Return the contents of each field of a message, in their order."""
    fields: dict[int, list[bytes | int]] = {}
    rest = iter(message)
    for key in _numbers(rest):
        content: bytes | int = _number(rest)
        if key & 7 == _BYTES:
            content = bytes(next(rest) for _ in range(int(content)))
        elif key & 7 != _NUMBER:
            raise ValueError(f"field {key >> 3} has wire type {key & 7}; 0 and 2 are known")
        fields.setdefault(key >> 3, []).append(content)
    return fields


def messages(message: bytes, field: int) -> list[bytes]:
    """Return what a repeated field of messages holds."""
    return [content for content in decode(message).get(field, []) if isinstance(content, bytes)]


def texts(message: bytes, field: int) -> list[str]:
    """Return what a repeated field of strings holds."""
    return [content.decode() for content in messages(message, field)]


def number(message: bytes, field: int) -> int:
    """Return a number; 0 where it is absent."""
    last = decode(message).get(field, [0])[-1]
    assert isinstance(last, int)
    return last


def _field(number: int, content: str | bytes | int) -> bytes:
    if isinstance(content, int):
        return _varint(number << 3 | _NUMBER) + _varint(content)
    data = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _numbers(rest: Iterator[int]) -> Iterator[int]:
    for first in rest:
        yield _number(_chain(first, rest))


def _chain(first: int, rest: Iterable[int]) -> Iterator[int]:
    yield first
    yield from rest


def _number(rest: Iterator[int]) -> int:
    value = 0
    for position, group in enumerate(rest):
        value |= (group & 0x7F) << 7 * position
        if group < 0x80:
            return value
    raise ValueError("the message ends within a number")
