from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from serving_http.limits import Limits

Serving = Callable[..., AbstractAsyncContextManager[tuple[str, int]]]
Exchange = Callable[..., Awaitable[bytes]]

SMUGGLING = {
    "length and transfer-encoding": (
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "transfer-encoding and length": (
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"
    ),
    "two different lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "folded header": b"X-Long: one\r\n two\r\nContent-Length: 0\r\n\r\n",
    "bare line feed": b"X-One: 1\nContent-Length: 0\r\n\r\n",
    "bare carriage return": b"X-One: 1\rContent-Length: 0\r\n\r\n",
    "unknown transfer-encoding": b"Transfer-Encoding: gzip\r\n\r\nabc",
    "space before the colon": b"Content-Length : 3\r\n\r\nabc",
    "two codings": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two hosts": b"Host: b\r\nContent-Length: 0\r\n\r\n",
    "signed length": b"Content-Length: +3\r\n\r\nabc",
}


def post(path: bytes, body: bytes, extra: bytes = b"") -> bytes:
    length = str(len(body)).encode()
    head = b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nContent-Length: " + length + b"\r\n"
    return head + extra + b"\r\n" + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def error_of(answer: bytes) -> dict[str, str | None]:
    error: dict[str, str | None] = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    return error


@pytest.mark.parametrize("rest", SMUGGLING.values(), ids=SMUGGLING.keys())
async def test_ambiguous_requests_are_refused_and_the_connection_closed(
    serving: Serving, exchange: Exchange, rest: bytes
) -> None:
    async with serving() as address:
        answer = await exchange(address, b"POST /v1/items HTTP/1.1\r\nHost: a\r\n" + rest)
    assert status_of(answer) == 400
    assert error_of(answer)["type"] == "invalid_request_error"


async def test_head_over_its_limit_is_431(serving: Serving, exchange: Exchange) -> None:
    head = b"GET /plain HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"
    async with serving() as address:
        answer = await exchange(address, head)
    assert status_of(answer) == 431


@pytest.mark.parametrize("size", [66_000, 150_000])
async def test_header_that_never_ends_is_431_at_once(
    serving: Serving, exchange: Exchange, size: int
) -> None:
    async with serving(limits=Limits(head_timeout_s=1000)) as address:
        answer = await exchange(address, b"GET /plain HTTP/1.1\r\nX: " + b"x" * size)
    assert status_of(answer) == 431


async def test_largest_head_is_taken(serving: Serving, exchange: Exchange) -> None:
    start = b"GET /plain HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: "
    head = start + b"x" * (64 * 1024 - len(start) - 4) + b"\r\n\r\n"
    async with serving() as address:
        answer = await exchange(address, head)
    assert status_of(answer) == 200


@pytest.mark.parametrize("whole", [True, False], ids=["many trailers", "one endless trailer"])
async def test_trailers_are_bounded_like_a_head(
    serving: Serving, exchange: Exchange, whole: bool
) -> None:
    head = b"POST /v1/items HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    trailers = (b"X-T: " + b"x" * 90 + b"\r\n") * 900 if whole else b"X-T: " + b"x" * 90_000
    async with serving() as address:
        answer = await exchange(address, head + trailers)
    assert status_of(answer) == 431


async def test_trailers_are_no_headers(serving: Serving, exchange: Exchange) -> None:
    head = b"POST /headers HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    body = b"Connection: close\r\n\r\n2\r\n{}\r\n0\r\nX-Late: 1\r\n\r\n"
    async with serving() as address:
        answer = await exchange(address, head + body)
    assert status_of(answer) == 200
    assert b"x-late" not in answer


async def test_upgrade_is_ignored_and_its_body_is_read(
    serving: Serving, exchange: Exchange
) -> None:
    extra = b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n"
    async with serving() as address:
        answer = await exchange(address, post(b"/v1/items", b'{"name": "a"}', extra))
    assert status_of(answer) == 200
    assert answer.endswith(b"a")


async def test_missing_host_is_400(serving: Serving, exchange: Exchange) -> None:
    async with serving() as address:
        answer = await exchange(address, b"GET /plain HTTP/1.1\r\n\r\n")
    assert status_of(answer) == 400
    assert "Host" in (error_of(answer)["message"] or "")


async def test_head_with_bare_line_feeds_is_400_at_once(
    serving: Serving, exchange: Exchange
) -> None:
    async with serving(limits=Limits(head_timeout_s=1000)) as address:
        answer = await exchange(address, b"GET /plain HTTP/1.1\nHost: a\n\n")
    assert status_of(answer) == 400


async def test_refusal_has_a_request_id(serving: Serving, exchange: Exchange) -> None:
    async with serving() as address:
        answer = await exchange(address, b"nonsense\r\n\r\n")
    assert b"\r\nx-request-id: " in answer


async def test_early_answer_closes_what_is_still_being_sent(
    serving: Serving, exchange: Exchange
) -> None:
    request = post(b"/v1/items", b"x" * 1000)[:-500]
    async with serving(keys=["k"], limits=Limits(linger_s=0.1)) as address:
        answer = await exchange(address, request)
    assert status_of(answer) == 401
    assert answer.count(b"HTTP/1.1") == 1


async def test_head_that_never_ends_is_431(serving: Serving, exchange: Exchange) -> None:
    async with serving() as address:
        answer = await exchange(address, b"GET /" + b"x" * 200_000)
    assert status_of(answer) == 431


async def test_declared_body_over_the_limit_is_413_before_it_is_sent(
    serving: Serving, exchange: Exchange
) -> None:
    head = b"POST /v1/items HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n"
    async with serving(limits=Limits(max_body_bytes=1000)) as address:
        answer = await exchange(address, head)
    assert status_of(answer) == 413
    assert "1000 bytes" in (error_of(answer)["message"] or "")


async def test_chunked_body_over_the_limit_is_413(serving: Serving, exchange: Exchange) -> None:
    head = b"POST /v1/items HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(limits=Limits(max_body_bytes=1000)) as address:
        answer = await exchange(address, head + (b"100\r\n" + b"x" * 256 + b"\r\n") * 6)
    assert status_of(answer) == 413


async def test_head_that_dawdles_is_408(serving: Serving, exchange: Exchange) -> None:
    async with serving(limits=Limits(head_timeout_s=0.2)) as address:
        answer = await exchange(address, b"GET /plain HTTP/1.1\r\nHost:")
    assert status_of(answer) == 408


async def test_body_that_dawdles_is_408(serving: Serving, exchange: Exchange) -> None:
    async with serving(limits=Limits(body_timeout_s=0.2)) as address:
        answer = await exchange(address, post(b"/v1/items", b'{"name": "a"}')[:-3])
    assert status_of(answer) == 408


async def test_silent_connection_is_closed(serving: Serving, exchange: Exchange) -> None:
    async with serving(limits=Limits(idle_timeout_s=1)) as address:
        assert await exchange(address, b"") == b""


async def test_idle_connection_is_closed_after_its_answer(
    serving: Serving, exchange: Exchange
) -> None:
    async with serving(limits=Limits(idle_timeout_s=1)) as address:
        answer = await exchange(address, b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n")
    assert status_of(answer) == 200


async def test_http_1_0_stream_has_no_chunks_and_ends_with_the_connection(
    serving: Serving, exchange: Exchange
) -> None:
    async with serving() as address:
        answer = await exchange(address, b"GET /stream HTTP/1.0\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body == b"one two three"


async def test_http_1_0_answer_of_known_length_keeps_it(
    serving: Serving, exchange: Exchange
) -> None:
    async with serving() as address:
        answer = await exchange(address, b"GET /plain HTTP/1.0\r\n\r\n")
    assert b"content-length: 5" in answer.lower()
    assert answer.endswith(b"plain")


async def test_half_close_is_answered_or_closed(serving: Serving, exchange: Exchange) -> None:
    raw = b"GET /plain HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    async with serving() as address:
        answer = await exchange(address, raw, half_close=True)
    assert answer == b"" or status_of(answer) == 200


async def test_two_requests_on_one_connection_are_both_answered(
    serving: Serving, exchange: Exchange
) -> None:
    last = b"GET /plain HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    async with serving() as address:
        answer = await exchange(address, post(b"/v1/items", b'{"name": "a"}') + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 2


async def test_client_that_hangs_up_in_its_body_leaves_the_server_whole(
    serving: Serving, exchange: Exchange
) -> None:
    async with serving() as address:
        _, writer = await asyncio.open_connection(*address)
        writer.write(post(b"/v1/items", b'{"name": "a"}')[:-3])
        writer.close()
        answer = await exchange(address, b"GET /plain HTTP/1.0\r\n\r\n")
    assert status_of(answer) == 200
