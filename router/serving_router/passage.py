"""Which headers go through the router, in either direction (RFC 9110, section 7.6.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from serving_contract.headers import PRIVATE_PREFIX, REQUEST_ID

Header = tuple[bytes, bytes]

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_MADE_ANEW_FOR_REPLICA: Final = frozenset(
    {b"host", b"content-length", b"expect", b"authorization", b"accept-encoding"}
)
"""Answers come uncompressed, because the router reads their usage; keys are the router's own."""
_MADE_ANEW_FOR_CLIENT: Final = frozenset({b"date", b"server"})
_PRIVATE: Final = PRIVATE_PREFIX.encode()
_REQUEST_ID: Final = REQUEST_ID.encode()


def to_replica(headers: Iterable[Header]) -> list[tuple[str, str]]:
    """Return the client's headers that a replica gets."""
    kept = _pass(headers, _MADE_ANEW_FOR_REPLICA)
    return [(name.decode("ascii"), _text(value)) for name, value in kept]


def _text(value: bytes) -> str:
    """Decode a value so that the client library, which encodes as UTF-8, keeps UTF-8 as it is."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def to_client(headers: Iterable[Header]) -> list[Header]:
    """Return the replica's headers that a client gets."""
    return _pass(headers, _MADE_ANEW_FOR_CLIENT)


def _pass(headers: Iterable[Header], made_anew: frozenset[bytes]) -> list[Header]:
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = _HOP_BY_HOP | made_anew | _named_by_connection(lowered)
    return [
        (name, value)
        for name, value in lowered
        if name not in dropped and name != _REQUEST_ID and not name.startswith(_PRIVATE)
    ]


def _named_by_connection(headers: list[Header]) -> frozenset[bytes]:
    return frozenset(
        option.strip().lower()
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    )
