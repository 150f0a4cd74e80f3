"""Two replicas and the router behind the official client."""

from __future__ import annotations

import asyncio
import random
from typing import Protocol

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionUserMessageParam

CLIENTS = 64
DISCONNECTS = 50
NO_END = {"ignore_eos": True}


class Served(Protocol):
    @property
    def url(self) -> str: ...
    def load(self) -> list[dict[str, object]]: ...
    def wait_for(self, condition: object, what: str) -> None: ...


def client_of(served: Served) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none")


def owes_nothing(served: Served) -> bool:
    load = served.load()
    counts = ("pending_tokens", "reserved_tokens", "reservations", "in_flight")
    return bool(load) and all(replica[count] == 0 for replica in load for count in counts)


async def ask(client: AsyncOpenAI, number: int) -> str:
    """One of four kinds of request, by its number; greedy and never ending early."""
    chat: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": f"ask {number}"}]
    tokens = 4 + number % 13
    match number % 4:
        case 0:
            answer = await client.chat.completions.create(
                model="tiny", messages=chat, max_tokens=tokens, temperature=0, extra_body=NO_END
            )
            return answer.choices[0].message.content or ""
        case 1:
            stream = await client.chat.completions.create(
                model="tiny",
                messages=chat,
                max_tokens=tokens,
                temperature=0,
                stream=True,
                extra_body=NO_END,
            )
            return "".join([part.choices[0].delta.content or "" async for part in stream])
        case 2:
            completion = await client.completions.create(
                model="tiny",
                prompt=f"once {number}",
                max_tokens=tokens,
                temperature=0,
                n=2,
                extra_body=NO_END,
            )
            return completion.choices[1].text
        case _:
            parts = await client.completions.create(
                model="tiny",
                prompt=["one", "two"],
                max_tokens=tokens,
                temperature=0,
                stream=True,
                extra_body=NO_END,
            )
            return "".join([part.choices[0].text async for part in parts])


async def test_64_mixed_requests_are_answered_by_both_replicas_and_leave_nothing(
    served: Served,
) -> None:
    async with client_of(served) as client:
        answers = await asyncio.gather(*(ask(client, number) for number in range(CLIENTS)))
    assert all(answers)
    served.wait_for(lambda: owes_nothing(served), "a load of zero everywhere")


async def test_50_clients_that_hang_up_leave_nothing(served: Served) -> None:
    chooser = random.Random(1)

    async def hang_up(number: int) -> None:
        async with client_of(served) as client:
            stream = await client.completions.create(
                model="tiny",
                prompt=f"never ends {number}",
                max_tokens=1500,
                stream=True,
                extra_body=NO_END,
            )
            for _ in range(chooser.randrange(4)):
                await anext(stream)
            await stream.close()

    await asyncio.gather(*(hang_up(number) for number in range(DISCONNECTS)))
    served.wait_for(lambda: owes_nothing(served), "a load of zero everywhere")


async def test_both_replicas_answer(served: Served) -> None:
    async def replica() -> str:
        async with client_of(served) as client:
            raw = await client.completions.with_raw_response.create(
                model="tiny", prompt="a", max_tokens=30
            )
            return raw.headers["x-ascend-serving-replica"]

    assert len(set(await asyncio.gather(*(replica() for _ in range(8))))) == 2


async def test_errors_reach_the_official_client_with_their_field(served: Served) -> None:
    async with client_of(served) as client:
        with pytest.raises(openai.BadRequestError) as bad:
            await client.completions.create(model="tiny", prompt="a", temperature=9)
        assert bad.value.param == "temperature"
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.completions.create(model="other", prompt="a")
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as long:
            await client.completions.create(model="tiny", prompt="a " * 3000, max_tokens=5)
        assert long.value.code == "context_length_exceeded"


async def test_models_are_listed_with_their_context(served: Served) -> None:
    async with client_of(served) as client:
        models = [model async for model in client.models.list()]
    assert [model.id for model in models] == ["tiny"]
    assert models[0].model_dump()["max_model_len"] == 2048


async def test_same_seed_is_the_same_text_whichever_replica_answers(served: Served) -> None:
    async with client_of(served) as client:

        async def text() -> str:
            answer = await client.completions.create(
                model="tiny", prompt="b", max_tokens=12, temperature=1.0, seed=7
            )
            return answer.choices[0].text

        assert len(set(await asyncio.gather(*(text() for _ in range(8))))) == 1
