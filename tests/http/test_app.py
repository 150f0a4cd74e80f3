from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import aiohttp
import pytest

Serving = Callable[..., AbstractAsyncContextManager[tuple[str, int]]]

BAD_BODIES = {
    "not JSON": (b"{", None),
    "not an object": (b"[1]", None),
    "missing field": (b"{}", "name"),
    "wrong type": (b'{"name": 1}', "name"),
    "wrong type in a list": (b'{"name": "a", "sizes": [1, "x"]}', "sizes[1]"),
    "not UTF-8": (b'{"name": "\xff"}', None),
}


@pytest.mark.parametrize(("body", "param"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_bad_body_is_a_400_that_names_the_field(
    serving: Serving, body: bytes, param: str | None
) -> None:
    async with serving() as address, _client(address) as client:
        answer = await client.post("/v1/items", data=body)
        error = (await answer.json())["error"]
    assert answer.status == 400
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


async def test_unknown_path_is_404_in_the_same_shape(serving: Serving) -> None:
    async with serving() as address, _client(address) as client:
        answer = await client.get("/nowhere")
        error = (await answer.json())["error"]
    assert (answer.status, error["type"]) == (404, "not_found_error")
    assert "/nowhere" in error["message"]


async def test_wrong_method_is_405_with_allow(serving: Serving) -> None:
    async with serving() as address, _client(address) as client:
        answer = await client.get("/v1/items")
    assert answer.status == 405
    assert answer.headers["Allow"] == "POST"


async def test_error_keeps_its_headers_and_code(serving: Serving) -> None:
    async with serving() as address, _client(address) as client:
        answer = await client.get("/refuse")
        error = (await answer.json())["error"]
    assert (answer.status, answer.headers["Retry-After"]) == (429, "3")
    assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")


async def test_bug_is_a_500_with_the_request_id(serving: Serving) -> None:
    async with serving() as address, _client(address) as client:
        answer = await client.get("/bug", headers={"x-request-id": "mine"})
        error = (await answer.json())["error"]
    assert (answer.status, error["type"]) == (500, "server_error")
    assert answer.headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("abc-123", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("é", False)],
    ids=["plain", "longest", "too long", "with a space", "not ASCII"],
)
async def test_request_id_is_the_clients_if_it_fits_a_log_line(
    serving: Serving, sent: str, kept: bool
) -> None:
    async with serving() as address, _client(address) as client:
        answer = await client.get("/plain", headers={"x-request-id": sent})
    assert (answer.headers["x-request-id"] == sent) is kept
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Basic one", 401),
        ("Bearer one", 200),
        ("bearer two", 200),
        ("Bearer schlüssel", 200),
    ],
)
async def test_protected_paths_need_a_key(
    serving: Serving, header: str | None, status: int
) -> None:
    headers = {"Authorization": header} if header else {}
    async with serving(keys=["one", "two", "schlüssel"]) as address, _client(address) as client:
        answer = await client.post("/v1/items", json={"name": "a"}, headers=headers)
        assert answer.status == status
        if status == 401:
            assert (await answer.json())["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("path", ["/plain", "/docs", "/openapi.json"])
async def test_open_paths_need_no_key(serving: Serving, path: str) -> None:
    async with serving(keys=["one"]) as address, _client(address) as client:
        assert (await client.get(path)).status == 200


async def test_docs_load_nothing_from_elsewhere(serving: Serving) -> None:
    async with serving() as address, _client(address) as client:
        page = await (await client.get("/docs")).text()
    assert "https://" not in page.replace("https://fastapi.tiangolo.com/img/favicon.png", "")
    assert "swagger-ui-bundle.js" in page


def _client(address: tuple[str, int]) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(f"http://{address[0]}:{address[1]}")
