"""What the router reads in answers that pass through: events, usage, whether they are whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import orjson

_MAX_HELD_BYTES: Final = 1024 * 1024
"""A longer line is passed on in pieces and not read; a longer unary body is not read."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The token counts of an answer, each None if it did not tell."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class AnswerReader(Protocol):
    """Looks at the bytes of one answer on their way through."""

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Return what may be passed on now, and how many output events it holds."""
        ...

    def end(self) -> bytes:
        """Return what was held back, at the end of a whole answer."""
        ...

    def usage(self) -> Usage:
        """Return the answer's own counts; of a stream without, its counted events."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether the bytes so far are a whole answer."""
        ...


class StreamReader:
    """Server-sent events. Only whole lines are passed on, so an error event never lands in one."""

    def __init__(self) -> None:
        self._held = b""
        self._events = 0
        self._newest = b""
        self._has_ended = False
        self._has_failed = False

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Pass on whole lines."""
        lines, newline, rest = (self._held + data).rpartition(b"\n")
        if len(rest) > _MAX_HELD_BYTES:
            lines, newline, rest = lines + newline + rest, b"", b""
        self._held = rest
        before = self._events
        for line in lines.split(b"\n"):
            self._read(line)
        return lines + newline, self._events - before

    def _read(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        payload = line[len(b"data:") :].strip()
        if payload == b"[DONE]":
            self._has_ended = True
            return
        self._events += 1
        self._newest = payload
        self._has_failed = self._has_failed or payload.startswith(b'{"error"')

    def end(self) -> bytes:
        """Return a last line that no newline ended."""
        return self._held

    def usage(self) -> Usage:
        """Read the last event, which has the usage if the client asked for it."""
        if self._has_failed:
            return Usage()
        told = parse_usage(self._newest)
        return told if told.completion_tokens is not None else Usage(None, self._events)

    @property
    def is_whole(self) -> bool:
        """Whether `[DONE]` or an error ended the stream."""
        return self._has_ended or self._has_failed


class UnaryReader:
    """A JSON body of known length: HTTP itself tells whether it is whole."""

    is_whole = True

    def __init__(self) -> None:
        self._body = bytearray()

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Pass everything on."""
        if len(self._body) <= _MAX_HELD_BYTES:
            self._body += data
        return data, 0

    def end(self) -> bytes:
        """Return nothing: nothing was held back."""
        return b""

    def usage(self) -> Usage:
        """Read the body's usage."""
        return parse_usage(bytes(self._body))


def parse_usage(payload: bytes) -> Usage:
    """Read `usage` of an OpenAI object; whatever is not one has none."""
    try:
        answer = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return Usage()
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(usage, dict):
        return Usage()
    return Usage(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
