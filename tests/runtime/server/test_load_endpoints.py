"""Load as a router sees it: accepted requests, disconnects, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import openai
import pytest

from serving_contract.load import LoadReport, parse_report

IDLE = {"pending_prompt_tokens": 0, "pending_output_tokens": 0, "running": 0, "waiting": 0}


def idle_part(report: LoadReport) -> dict[str, int]:
    return report.model_dump(include={*IDLE})


async def test_a_whole_report_lists_what_was_accepted_and_finished(start_echo: Any) -> None:
    async with start_echo() as server, aiohttp.ClientSession() as session:
        server.executor.may_step.clear()
        headers = {
            "x-ascend-serving-reservation": "r-1",
            "x-ascend-serving-expected-tokens": "40",
        }
        body = {"model": "echo", "prompt": ["ab", "cd"], "max_tokens": 30}
        answering = asyncio.create_task(
            session.post(f"{server.url}/v1/completions", json=body, headers=headers)
        )
        async with session.get(f"{server.url}/v1/load/watch") as lines:
            assert lines.content_type == "application/x-ndjson"
            accepted: list[str] = []
            while "r-1" not in accepted:
                report = parse_report(await lines.content.readline())
                accepted += report.accepted
            assert report.pending_output_tokens == 40
            assert report.running + report.waiting == 2
            server.executor.may_step.set()
            while "r-1" not in report.finished:
                report = parse_report(await lines.content.readline())
            assert idle_part(report) == IDLE
        assert (await answering).status == 200
        async with session.get(f"{server.url}/v1/load") as answer:
            whole = parse_report(await answer.read())
        assert whole.finished == ("r-1",)
        assert whole.accepted == ()
        assert whole.seq == 0


@pytest.mark.parametrize("expected", ["", "-3", "many", "1e3", "0", "9" * 30, "²"], ids=repr)
async def test_an_expectation_that_is_no_number_is_ignored(start_echo: Any, expected: str) -> None:
    async with (
        start_echo() as server,
        aiohttp.ClientSession() as session,
        session.post(
            f"{server.url}/v1/completions",
            json={"model": "echo", "prompt": "ab"},
            headers={"x-ascend-serving-expected-tokens": expected},
        ) as answer,
    ):
        assert answer.status == 200


async def test_a_reservation_that_is_no_id_is_ignored(start_echo: Any) -> None:
    async with start_echo() as server, aiohttp.ClientSession() as session:
        async with session.post(
            f"{server.url}/v1/completions",
            json={"model": "echo", "prompt": "ab"},
            headers={"x-ascend-serving-reservation": "x" * 129},
        ) as answer:
            assert answer.status == 200
        assert server.replica.board.whole().finished == ()


async def test_a_request_that_is_refused_is_never_accepted(start_echo: Any) -> None:
    async with start_echo() as server, aiohttp.ClientSession() as session:
        async with session.post(
            f"{server.url}/v1/completions",
            json={"model": "echo", "prompt": "ab", "max_tokens": 10**6},
            headers={"x-ascend-serving-reservation": "r"},
        ) as answer:
            assert answer.status == 400
        whole = server.replica.board.whole()
        assert (whole.accepted, whole.finished) == ((), ())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_leaves_frees_its_blocks_within_a_step(
    start_echo: Any, load_until: Any, stream: bool
) -> None:
    async with start_echo() as server:
        server.executor.may_step.clear()
        body = {"model": "echo", "prompt": "a" * 60, "max_tokens": 400, "ignore_eos": True}
        async with aiohttp.ClientSession() as session:
            answering = asyncio.create_task(
                session.post(f"{server.url}/v1/completions", json=body | {"stream": stream})
            )
            await load_until(server.replica, lambda report: report.running > 0)
            steps = server.executor.steps
            answering.cancel()
            await asyncio.wait([answering])
        await load_until(server.replica, lambda report: report.running == 0)
        server.executor.may_step.set()
        await load_until(server.replica, lambda report: report.kv_blocks_used == 0)
        assert server.executor.steps <= steps + 1


async def test_a_client_that_leaves_mid_stream_frees_its_blocks(
    start_echo: Any, load_until: Any
) -> None:
    async with start_echo() as server:
        stream = await server.client.completions.create(
            model="echo",
            prompt="a" * 60,
            max_tokens=400,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        await anext(aiter(stream))
        server.executor.may_step.clear()
        await stream.close()
        await load_until(server.replica, lambda report: report.running == 0)
        assert server.replica.load().pending_output_tokens == 0


async def test_a_mixed_crowd_leaves_nothing_behind(replica: Any) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{replica.url}/v1", api_key="-", max_retries=0, timeout=120
    ) as client:

        async def whole(i: int) -> None:
            answer = await client.completions.create(
                model="tiny", prompt="hello" * (i % 7 + 1), max_tokens=i % 20 + 1, n=i % 3 + 1
            )
            assert len(answer.choices) == i % 3 + 1

        async def streamed(i: int) -> None:
            stream = await client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": "x" * (i + 1)}],
                max_tokens=i % 20 + 1,
                stream=True,
            )
            reasons = [chunk.choices[0].finish_reason async for chunk in stream]
            assert reasons[-1] in ("stop", "length")

        async def given_up(i: int) -> None:
            stream = await client.completions.create(
                model="tiny",
                prompt="bye",
                max_tokens=400,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            await anext(aiter(stream))
            await stream.close()

        kinds = [whole, streamed]
        await asyncio.gather(
            *(kinds[i % 2](i) for i in range(64)), *(given_up(i) for i in range(50))
        )
    await asyncio.to_thread(
        replica.wait_until,
        lambda: (
            idle_part(LoadReport.model_validate(replica.load())) == IDLE
            and replica.load()["kv_blocks_used"] == 0
        ),
    )


async def test_a_worker_that_dies_mid_stream_ends_it_with_the_typed_error(start_echo: Any) -> None:
    async with start_echo() as server, aiohttp.ClientSession() as session:
        body = {"model": "echo", "prompt": "a" * 60, "max_tokens": 300, "stream": True}
        body["ignore_eos"] = True
        async with session.post(f"{server.url}/v1/completions", json=body) as answer:
            await answer.content.readline()
            server.executor.failure = "the worker was killed by SIGKILL"
            rest = (await answer.content.read()).decode()
        last = json.loads(rest.rstrip().rpartition("data: ")[2])
        assert last["error"]["type"] == "server_error"
        assert last["error"]["code"] == "replica_failed"
        assert "SIGKILL" in last["error"]["message"]
        assert "[DONE]" not in rest
        async with session.get(f"{server.url}/health") as health:
            assert health.status == 503
        async with session.post(f"{server.url}/v1/completions", json=body) as answer:
            assert answer.status == 503


async def test_the_client_raises_on_a_stream_that_fails(start_echo: Any) -> None:
    async with start_echo() as server:
        stream = await server.client.completions.create(
            model="echo",
            prompt="a" * 60,
            max_tokens=300,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        server.executor.failure = "gone"
        with pytest.raises(openai.APIError, match="gone"):
            async for _ in stream:
                pass


async def test_a_worker_that_dies_before_the_first_byte_is_a_plain_503(start_echo: Any) -> None:
    async with start_echo() as server:
        server.executor.failure = "gone"
        with pytest.raises(openai.InternalServerError, match="gone") as failure:
            await server.client.completions.create(model="echo", prompt="a", stream=True)
        assert failure.value.status_code == 503
        assert failure.value.code == "replica_failed"
