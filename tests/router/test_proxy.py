from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import aiohttp
import openai
import pytest
from aiohttp import web

from serving_contract.deployment import SessionAffinity
from serving_contract.headers import EXPECTED_TOKENS, REPLICA, REQUEST_ID, RESERVATION
from serving_router.settings import RouterSettings

if TYPE_CHECKING:
    from tests.router.conftest import (
        Eventually,
        FakeReplica,
        Fleet,
        Handler,
        RouterUnderTest,
        StartRouter,
    )


async def all_zero(router: RouterUnderTest) -> bool:
    rows = (await router.loads()).values()
    return not any(row["reservations"] + row["in_flight"] + row["reserved_tokens"] for row in rows)


async def test_unary_answer_passes_unchanged(fleet: Fleet, start_router: StartRouter) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    async with router.chat() as response:
        assert response.status == 200
        assert await response.read() == replica.unary().body
        assert response.headers[REPLICA] == "r0"
        assert response.headers["endpoint-load-metrics"] == "TEXT named_metrics.x=1"


async def test_streamed_answer_passes_unchanged(fleet: Fleet, start_router: StartRouter) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    async with router.chat(stream=True) as response:
        events = b"".join(replica.event(f"t{number} ") for number in range(3))
        assert await response.read() == events + b"data: [DONE]\n\n"


async def test_event_reaches_the_client_before_the_next_is_made(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    replica.steps = asyncio.Semaphore(0)
    async with asyncio.timeout(60):
        request = asyncio.create_task(router.chat(stream=True).__aenter__())
        replica.steps.release()
        response = await request
        for number in range(3):
            assert await response.content.readuntil(b"\n\n") == replica.event(f"t{number} ")
            replica.steps.release()
        assert await response.read() == b"data: [DONE]\n\n"


async def test_official_client_is_content(fleet: Fleet, start_router: StartRouter) -> None:
    router = await start_router(await fleet(2))
    async with openai.AsyncOpenAI(base_url=router.url + "/v1", api_key="none") as client:
        answer = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}]
        )
        assert answer.choices[0].message.content == "xxx"
        stream = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        texts = [chunk.choices[0].delta.content async for chunk in stream]
        assert texts == ["t0 ", "t1 ", "t2 "]


async def test_idle_fleet_is_used_evenly(fleet: Fleet, start_router: StartRouter) -> None:
    replicas = await fleet(3)
    router = await start_router(replicas)
    for _ in range(6):
        async with router.chat() as response:
            await response.read()
    assert [len(replica.generated) for replica in replicas] == [2, 2, 2]


async def test_request_goes_to_the_replica_that_owes_least(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    busy, idle = await fleet(2)
    busy.load = {"pending_output_tokens": 1000}
    router = await start_router([busy, idle])
    for _ in range(4):
        async with router.chat() as response:
            assert response.headers[REPLICA] == "r1"


async def test_private_headers_of_a_client_are_dropped(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    forged = {RESERVATION: "forged", EXPECTED_TOKENS: "7000000", "x-ascend-serving-x": "1"}
    body = {"model": "tiny", "messages": [], "max_tokens": 10, "n": 2}
    async with router.session.post("/v1/chat/completions", json=body, headers=forged) as response:
        await response.read()
    [(request, _)] = replica.generated
    assert request.headers.getall(RESERVATION) != ["forged"]
    assert request.headers.getall(EXPECTED_TOKENS) == ["20"]
    assert "x-ascend-serving-x" not in request.headers


async def test_hop_by_hop_headers_and_the_clients_key_stay_at_the_router(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    sent = {"authorization": "Bearer outer", "te": "trailers", "x-hop": "1", "x-kept": "2"}
    body = {"model": "tiny", "messages": []}
    headers = {**sent, "connection": "keep-alive, x-hop"}
    async with router.session.post("/v1/chat/completions", json=body, headers=headers) as response:
        await response.read()
    [(request, _)] = replica.generated
    assert "authorization" not in request.headers
    assert "te" not in request.headers
    assert "x-hop" not in request.headers
    assert request.headers["x-kept"] == "2"


async def test_request_id_goes_both_ways(fleet: Fleet, start_router: StartRouter) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    body = {"model": "tiny", "messages": []}
    async with router.session.post(
        "/v1/chat/completions", json=body, headers={REQUEST_ID: "mine"}
    ) as response:
        assert response.headers.getall(REQUEST_ID) == ["mine"]
    [(request, _)] = replica.generated
    assert request.headers[REQUEST_ID] == "mine"


async def test_every_attempt_has_a_reservation_of_its_own(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    for _ in range(3):
        async with router.chat() as response:
            await response.read()
    assert len(set(replica.reservations)) == 3


async def test_body_reaches_the_replica_byte_for_byte(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    body = b'{ "model":"tiny",\n "messages": [{"role":"user","content":"\xc3\xbc"}] , "odd": 1e2}'
    async with router.session.post("/v1/chat/completions", data=body) as response:
        assert response.status == 200
    assert replica.generated[0][1] == body


async def test_body_that_is_sent_in_chunks_reaches_the_replica_whole(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])

    async def chunks() -> AsyncIterator[bytes]:
        for piece in (b'{"model"', b': "tiny", "messages"', b": []}"):
            yield piece

    async with router.session.post("/v1/chat/completions", data=chunks()) as response:
        assert response.status == 200
    assert replica.generated[0][1] == b'{"model": "tiny", "messages": []}'


async def test_http_1_0_client_gets_a_stream_without_chunks(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    host, port = router.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = b'{"model": "tiny", "messages": [], "stream": true}'
    head = b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body)
    writer.write(head + body)
    answered, _, streamed = (await reader.read()).partition(b"\r\n\r\n")
    assert b"chunked" not in answered.lower()
    assert streamed.startswith(b"data: {")
    assert streamed.endswith(b"data: [DONE]\n\n")
    writer.close()
    await writer.wait_closed()


async def test_replicas_refusal_passes_unchanged(fleet: Fleet, start_router: StartRouter) -> None:
    [replica] = await fleet(1)

    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "too long"}}, status=400)

    replica.answer = refuse
    router = await start_router([replica])
    async with router.chat() as response:
        assert response.status == 400
        assert await response.json() == {"error": {"message": "too long"}}
    assert await all_zero(router)


async def test_draining_replica_is_passed_over(fleet: Fleet, start_router: StartRouter) -> None:
    draining, ready = await fleet(2)

    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"error": {}}, status=503)

    draining.answer = refuse
    router = await start_router([draining, ready])
    for _ in range(2):
        async with router.chat() as response:
            assert response.status == 200
            assert response.headers[REPLICA] == "r1"
    assert await router.metric("ascend_serving_router_retries_total") >= 1
    assert await all_zero(router)


async def test_replica_that_resets_before_the_first_byte_is_replaced(
    fleet: Fleet, start_router: StartRouter
) -> None:
    broken, sound = await fleet(2)

    async def reset(request: web.Request) -> web.StreamResponse:
        stream = await broken.begin_stream(request)
        assert isinstance(request.transport, asyncio.Transport)
        request.transport.abort()
        return stream

    broken.answer = reset
    router = await start_router([broken, sound])
    for _ in range(2):
        async with router.chat(stream=True) as response:
            assert response.headers[REPLICA] == "r1"
            assert (await response.read()).endswith(b"[DONE]\n\n")
    assert await all_zero(router)


async def test_every_replica_is_asked_before_a_request_is_refused(
    fleet: Fleet, start_router: StartRouter
) -> None:
    *refusing, ready = await fleet(5)
    ready.load = {"pending_output_tokens": 50}

    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {}}, status=503)

    for replica in refusing:
        replica.answer = refuse
    router = await start_router([*refusing, ready])
    async with router.chat() as response:
        assert response.status == 200
        assert response.headers[REPLICA] == ready.name


async def test_only_replica_refusing_gives_503(fleet: Fleet, start_router: StartRouter) -> None:
    [replica] = await fleet(1)

    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"error": {}}, status=503)

    replica.answer = refuse
    router = await start_router([replica])
    async with router.chat() as response:
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "no_replica_ready"
        assert int(response.headers["retry-after"]) >= 1


async def test_only_replica_resetting_gives_502(fleet: Fleet, start_router: StartRouter) -> None:
    [replica] = await fleet(1)

    async def reset(request: web.Request) -> web.Response:
        assert isinstance(request.transport, asyncio.Transport)
        request.transport.abort()
        return web.Response()

    replica.answer = reset
    router = await start_router([replica])
    async with router.chat() as response:
        assert response.status == 502
        error = (await response.json())["error"]
        assert (error["code"], error["type"]) == ("replica_failed", "server_error")
    assert len(replica.generated) == 1
    assert await all_zero(router)


async def test_dead_replica_is_chosen_no_more(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    dead, alive = await fleet(2)
    router = await start_router([dead, alive])
    await dead.die()

    async def is_down() -> bool:
        return bool((await router.loads())["r0"]["state"] == "down")

    await eventually(is_down)
    for _ in range(4):
        async with router.chat() as response:
            assert response.headers[REPLICA] == "r1"
    assert await router.metric("ascend_serving_router_retries_total") == 0


async def test_restarted_replica_is_chosen_again(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    await replica.die()
    await replica.restart()

    async def is_ready() -> bool:
        row = (await router.loads())["r0"]
        return bool(row["state"] == "ready" and row["epoch"] == replica.epoch)

    await eventually(is_ready)
    async with router.chat() as response:
        assert response.status == 200


async def begin_stream(router: RouterUnderTest, replica: FakeReplica) -> aiohttp.ClientResponse:
    """Return a stream whose first event has come."""
    replica.steps = asyncio.Semaphore(1)
    response: aiohttp.ClientResponse = await router.chat(stream=True).__aenter__()
    await response.content.readuntil(b"\n\n")
    return response


async def test_replica_that_dies_mid_stream_gives_a_typed_error_and_a_proper_end(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    response = await begin_stream(router, replica)
    await replica.die()
    rest = await response.read()
    assert b"[DONE]" not in rest
    [event] = rest.split()[1:] if rest.split(b" ", 1)[0].strip() != b"data:" else [rest.strip()]
    error = json.loads(event.removeprefix(b"data: "))["error"]
    assert (error["code"], error["type"]) == ("replica_failed", "server_error")
    assert await all_zero(router)


@pytest.mark.parametrize(
    ("cut", "texts"),
    [
        pytest.param(slice(-2), ["one"], id="within its line"),
        pytest.param(slice(-1), ["one", "two"], id="before its empty line"),
    ],
)
async def test_event_sent_in_part_does_not_spoil_the_error(
    fleet: Fleet, start_router: StartRouter, cut: slice, texts: list[str]
) -> None:
    [replica] = await fleet(1)

    async def die_in_an_event(request: web.Request) -> web.StreamResponse:
        stream = await replica.begin_stream(request)
        await stream.write(replica.event("one") + replica.event("two")[cut])
        assert isinstance(request.transport, asyncio.Transport)
        request.transport.close()
        return stream

    replica.answer = die_in_an_event
    router = await start_router([replica])
    async with openai.AsyncOpenAI(
        base_url=router.url + "/v1", api_key="none", max_retries=0
    ) as client:
        stream = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        came = (chunk.choices[0].delta.content async for chunk in stream)
        assert [await anext(came) for _ in texts] == texts
        with pytest.raises(openai.APIError, match="replica r0"):
            await anext(came)


async def test_stream_of_declared_length_has_room_for_the_error(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)

    async def cut_short(request: web.Request) -> web.StreamResponse:
        headers = {"content-type": "text/event-stream", "content-length": "1000"}
        stream = web.StreamResponse(headers=headers)
        await stream.prepare(request)
        await stream.write(replica.event("x"))
        assert isinstance(request.transport, asyncio.Transport)
        request.transport.close()
        return stream

    replica.answer = cut_short
    router = await start_router([replica])
    async with router.chat(stream=True) as response:
        assert b'"replica_failed"' in await response.read()


async def test_replica_that_refuses_a_connection_is_tried_once(
    fleet: Fleet, start_router: StartRouter
) -> None:
    silent, sound = await fleet(2)
    silent.reports = False
    router = await start_router([silent, sound])
    await silent.die()
    for _ in range(4):
        async with router.chat() as response:
            assert response.headers[REPLICA] == "r1"
    assert (await router.loads())["r0"]["state"] == "down"
    assert await router.metric("ascend_serving_router_retries_total") <= 1


async def test_stream_that_ends_without_done_is_an_error(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)

    async def end_early(request: web.Request) -> web.StreamResponse:
        stream = await replica.begin_stream(request)
        await stream.write(replica.event("only"))
        return stream

    replica.answer = end_early
    router = await start_router([replica])
    async with router.chat(stream=True) as response:
        assert b'"replica_failed"' in await response.read()


async def test_replicas_own_typed_error_is_not_doubled(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)

    async def fail(request: web.Request) -> web.StreamResponse:
        stream = await replica.begin_stream(request)
        await stream.write(replica.event("x") + b'data: {"error": {"code": "theirs"}}\n\n')
        return stream

    replica.answer = fail
    router = await start_router([replica])
    async with router.chat(stream=True) as response:
        assert (await response.read()).count(b'"error"') == 1


async def test_unary_answer_cut_short_is_seen_by_the_client(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)

    async def cut_short(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-length": "100"})
        await answer.prepare(request)
        await answer.write(b"{")
        assert isinstance(request.transport, asyncio.Transport)
        request.transport.close()
        return answer

    replica.answer = cut_short
    router = await start_router([replica])
    async with router.chat() as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_hang_up_mid_stream_closes_the_upstream(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    response = await begin_stream(router, replica)
    response.close()

    async def is_over() -> bool:
        return replica.hang_ups == 1 and await all_zero(router)

    await eventually(is_over)


async def test_hang_up_before_the_first_byte_closes_the_upstream(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    [replica] = await fleet(1)
    replica.steps = asyncio.Semaphore(0)
    router = await start_router([replica])
    request = asyncio.create_task(router.chat(stream=True).__aenter__())

    async def has_arrived() -> bool:
        return len(replica.generated) == 1

    await eventually(has_arrived)
    request.cancel()

    async def is_over() -> bool:
        return replica.hang_ups == 1 and await all_zero(router)

    await eventually(is_over)
    assert await router.metric('ascend_serving_router_requests_total{code="499"}') == 1


async def test_slow_client_slows_the_replica(fleet: Fleet, start_router: StartRouter) -> None:
    [replica] = await fleet(1)
    written = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal written
        stream = await replica.begin_stream(request)
        event = replica.event("x" * 60_000)
        while True:
            await stream.write(event)
            written += len(event)

    replica.answer = flood
    router = await start_router([replica])
    async with router.chat(stream=True) as response:
        await response.content.readuntil(b"\n")
        for _ in range(300):
            async with router.session.get("/health") as health:
                assert health.status == 200
        assert written < 64 * 1024 * 1024
        response.close()


async def test_reservation_is_released_when_a_report_lists_it(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    response = await begin_stream(router, replica)
    row = (await router.loads())["r0"]
    assert (row["reservations"], row["in_flight"]) == (1, 1)
    assert row["reserved_tokens"] > 0
    replica.push(accepted=tuple(replica.reservations), pending_output_tokens=255)

    async def is_acknowledged() -> bool:
        row = (await router.loads())["r0"]
        return bool(row["pending_tokens"] == 255)

    await eventually(is_acknowledged)
    row = (await router.loads())["r0"]
    assert (row["reservations"], row["reserved_tokens"], row["in_flight"]) == (0, 0, 1)
    response.close()


async def test_restart_ends_the_streams_of_the_old_process(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    response = await begin_stream(router, replica)
    replica.push(accepted=tuple(replica.reservations))
    replica.push(epoch="another")
    rest = await response.read()
    assert b"restarted" in rest
    assert b"[DONE]" not in rest
    assert await all_zero(router)


async def test_silent_replica_gives_its_streams_the_typed_error(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    response = await begin_stream(router, replica)
    for _ in range(31):
        router.router.table.sweep(1.0)
    rest = await response.read()
    assert b"silent for 30 s" in rest
    assert b'"replica_failed"' in rest


async def test_full_queue_gives_429_with_a_time(fleet: Fleet, start_router: StartRouter) -> None:
    [replica] = await fleet(1)
    replica.load = {"pending_output_tokens": 70_000, "waiting": 1, "tokens_per_second": 100.0}
    router = await start_router([replica])
    async with router.chat() as response:
        assert response.status == 429
        assert (await response.json())["error"]["code"] == "queue_full"
        assert int(response.headers["retry-after"]) == 45
    assert await router.metric('ascend_serving_router_rejected_total{reason="queue_full"}') == 1


async def test_session_stays_with_its_replica(fleet: Fleet, start_router: StartRouter) -> None:
    affinity = SessionAffinity(header="x-session-id")
    settings = RouterSettings(served_model_name="tiny", session_affinity=affinity)
    router = await start_router(await fleet(3), settings=settings)
    body = {"model": "tiny", "messages": []}
    used = []
    for _ in range(4):
        async with router.session.post(
            "/v1/chat/completions", json=body, headers={"x-session-id": "s"}
        ) as response:
            used.append(response.headers[REPLICA])
    assert len(set(used)) == 1


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        pytest.param(b"{", 400, None, id="not JSON"),
        pytest.param(b"\xff", 400, None, id="not UTF-8"),
        pytest.param(b"[" * 100_000, 400, None, id="nested without end"),
        pytest.param(b"[]", 400, None, id="not an object"),
        pytest.param(b"{}", 400, "model", id="no model"),
        pytest.param(b'{"model": 1}', 400, "model", id="model is a number"),
        pytest.param(b'{"model": "other"}', 404, "model", id="unknown model"),
    ],
)
async def test_bad_body_is_refused_by_the_router(
    fleet: Fleet, start_router: StartRouter, body: bytes, status: int, param: str | None
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    async with router.session.post("/v1/completions", data=body) as response:
        assert response.status == status
        error: dict[str, Any] = (await response.json())["error"]
        assert error["param"] == param
        assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
    assert not replica.generated


async def test_many_mixed_requests_leave_nothing_behind(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    replicas = await fleet(3)
    router = await start_router(replicas)

    async def ask(number: int) -> None:
        async with router.chat(stream=number % 2 == 0) as response:
            if number % 3 == 0:
                response.close()
            else:
                await response.read()

    await asyncio.gather(*(ask(number) for number in range(90)))

    async def is_over() -> bool:
        return await all_zero(router)

    await eventually(is_over)


async def test_losing_a_replica_costs_only_its_own_streams(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    replicas = await fleet(3)
    gate = asyncio.Event()

    def pause_after_one(replica: FakeReplica) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            stream = await replica.begin_stream(request)
            await stream.write(replica.event("first"))
            await gate.wait()
            await stream.write(replica.event("second") + b"data: [DONE]\n\n")
            return stream

        return answer

    for replica in replicas:
        replica.answer = pause_after_one(replica)
    router = await start_router(replicas)
    responses = [await router.chat(stream=True).__aenter__() for _ in range(30)]
    for response in responses:
        await response.content.readuntil(b"\n\n")
    await replicas[0].die()
    gate.set()
    outcomes = {"r0": set[bool](), "r1": set[bool](), "r2": set[bool]()}
    for response in responses:
        whole = (await response.read()).endswith(b"[DONE]\n\n")
        outcomes[response.headers[REPLICA]].add(whole)
    assert outcomes == {"r0": {False}, "r1": {True}, "r2": {True}}

    async def is_over() -> bool:
        return await all_zero(router)

    await eventually(is_over)


async def test_learned_length_travels_with_the_request(
    fleet: Fleet, start_router: StartRouter
) -> None:
    [replica] = await fleet(1)
    replica.tokens = 10
    router = await start_router([replica])
    for number in range(21):
        async with router.chat(stream=number % 2 == 0) as response:
            await response.read()
    expected = [request.headers[EXPECTED_TOKENS] for request, _ in replica.generated]
    assert expected == ["256"] * 20 + ["12"]
