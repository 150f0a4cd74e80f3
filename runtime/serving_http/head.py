"""What is decided about a request's head, apart from any connection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from serving_http.errors import ApiError

Headers = Sequence[tuple[bytes, bytes]]

_END: Final = re.compile(rb"\r?\n\r?\n")
_UPGRADE: Final = re.compile(rb"\r\nupgrade:[^\r\n]*(?=\r\n)", re.IGNORECASE)


def end_of_head(data: bytes) -> int | None:
    """Return where the body would begin, None if the head is not whole.

    Bare line feeds end a head as well: the parser is to refuse them, not to wait for more.
    """
    found = _END.search(data)
    return None if found is None else found.end()


def without_upgrade(head: bytes) -> bytes:
    """Drop `Upgrade`, which a server may ignore (RFC 9110, section 7.8).

    The parser would stop at it, and with it the body that clients send along with `h2c`.
    """
    return _UPGRADE.sub(b"", head)


def declared_body_bytes(headers: Headers) -> int:
    """Return Content-Length, 0 if there is none; the parser has refused what is no number."""
    return int(next((value for name, value in headers if name == b"content-length"), b"0"))


def judge(headers: Headers, http_version: str) -> ApiError | None:
    """Return why a head that could be parsed is refused all the same."""
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts != 1 and http_version == "1.1":
        return ApiError(400, f"HTTP/1.1 needs one Host header, not {hosts}")
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if codings not in ([], [b"chunked"]):
        return ApiError(400, "the only Transfer-Encoding that is understood is chunked")
    return None
