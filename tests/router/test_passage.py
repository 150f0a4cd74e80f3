from __future__ import annotations

from serving_router import passage


def test_headers_of_one_connection_stay_there() -> None:
    headers = [
        (b"Connection", b"close, X-Mine"),
        (b"X-Mine", b"1"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Upgrade", b"h2c"),
        (b"X-Other", b"2"),
        (b"X-Other", b"3"),
    ]
    assert passage.to_replica(headers) == [("x-other", "2"), ("x-other", "3")]
    assert passage.to_client(headers) == [(b"x-other", b"2"), (b"x-other", b"3")]


def test_private_headers_pass_in_neither_direction() -> None:
    headers = [(b"X-Ascend-Serving-Prompt-Tokens", b"5")]
    assert passage.to_replica(headers) == []
    assert passage.to_client(headers) == []


def test_utf8_and_other_values_survive() -> None:
    assert passage.to_replica([(b"x", b"\xc3\xbc")]) == [("x", "\u00fc")]
    assert passage.to_replica([(b"x", b"\xfc")]) == [("x", "\u00fc")]
