"""Both generation endpoints through the official client, over an engine that repeats its prompt."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

HI = [{"role": "user", "content": "hi 😀"}]
HI_PROMPT = "<|im_start|>user\nhi 😀<|im_end|>\n<|im_start|>assistant\n"
"""The answer ends at the first `<|im_end|>`, which is EOS."""
HI_ANSWER = "user\nhi 😀"


async def chunks_of(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


async def sse(url: str, body: dict[str, Any]) -> list[str]:
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/event-stream"
        text = await answer.text()
    assert text.endswith("\n\n")
    return [event.removeprefix("data: ") for event in text.removesuffix("\n\n").split("\n\n")]


async def test_a_chat_is_answered_in_openais_shape(start_echo: Any) -> None:
    async with start_echo() as server:
        answer = await server.client.chat.completions.create(model="echo", messages=HI)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "echo"
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == HI_ANSWER
    assert choice.finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


async def test_a_chat_stream_has_role_text_reason_usage_and_done(start_echo: Any) -> None:
    async with start_echo() as server:
        body = {
            "model": "echo",
            "messages": HI,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        *events, done = await sse(f"{server.url}/v1/chat/completions", body)
    assert done == "[DONE]"
    first, *content, ending, usage = [json.loads(event) for event in events]
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    deltas = [chunk["choices"][0]["delta"]["content"] for chunk in content]
    assert "".join(deltas) == HI_ANSWER
    assert all(deltas), "an event without text"
    assert ending["choices"][0]["delta"] == {}
    assert ending["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] > 0
    assert all(chunk["usage"] is None for chunk in [first, *content, ending])
    assert len({chunk["id"] for chunk in [first, *content, ending, usage]}) == 1


async def test_a_stream_without_usage_does_not_mention_it(start_echo: Any) -> None:
    async with start_echo() as server:
        body = {"model": "echo", "prompt": "ab", "stream": True}
        *events, _ = await sse(f"{server.url}/v1/completions", body)
    assert all("usage" not in json.loads(event) for event in events)


@pytest.mark.parametrize("stop", ["hi", "\nh", "i 😀"])
async def test_a_stream_never_shows_a_part_of_a_stop_string(start_echo: Any, stop: str) -> None:
    async with start_echo() as server:
        stream = await server.client.chat.completions.create(
            model="echo", messages=HI, stream=True, stop=stop
        )
        chunks = await chunks_of(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == HI_ANSWER.partition(stop)[0]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].choices[0].stop_reason == stop


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_included_stop_string_ends_the_text(start_echo: Any, stream: bool) -> None:
    async with start_echo() as server:
        answer = await server.client.completions.create(
            model="echo",
            prompt="one two three",
            stop=["two"],
            stream=stream,
            extra_body={"include_stop_str_in_output": True},
        )
        parts = await chunks_of(answer) if stream else [answer]
    assert "".join(part.choices[0].text for part in parts) == "one two"


async def test_choices_of_several_prompts_are_in_order(start_echo: Any) -> None:
    async with start_echo() as server:
        answer = await server.client.completions.create(model="echo", prompt=["ab", "cd"], n=2)
        assert [choice.text for choice in answer.choices] == ["ab", "ab", "cd", "cd"]
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert answer.usage.prompt_tokens == 4
        assert answer.usage.completion_tokens == 12


async def test_streamed_choices_say_which_they_are(start_echo: Any) -> None:
    async with start_echo() as server:
        stream = await server.client.completions.create(
            model="echo", prompt=["ab", "cd"], n=2, stream=True
        )
        texts = ["", "", "", ""]
        async for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == ["ab", "ab", "cd", "cd"]


@pytest.mark.parametrize("prompt", ["ab", [67, 68]], ids=["text", "ids"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_echoed_prompt_comes_first(start_echo: Any, prompt: Any, stream: bool) -> None:
    async with start_echo() as server:
        answer = await server.client.completions.create(
            model="echo", prompt=prompt, echo=True, stream=stream
        )
        parts = await chunks_of(answer) if stream else [answer]
        expected = prompt
        if isinstance(prompt, list):
            expected = server.replica.tokenizer.decode(prompt, skip_special_tokens=False)
    assert "".join(part.choices[0].text for part in parts) == expected * 2


async def test_scoring_gives_prompt_logprobs_and_no_token(start_echo: Any) -> None:
    async with start_echo() as server:
        answer = await server.client.completions.create(
            model="echo", prompt="abc", max_tokens=0, echo=True, logprobs=1
        )
    (choice,) = answer.choices
    assert choice.text == "abc"
    assert choice.logprobs.tokens == ["a", "b", "c"]
    assert choice.logprobs.token_logprobs == [None, -0.5, -0.5]
    assert choice.logprobs.top_logprobs == [None, {"b": -0.5}, {"c": -0.5}]
    assert choice.logprobs.text_offset == [0, 1, 2]
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 0


async def test_completion_logprobs_are_parallel_lists(start_echo: Any) -> None:
    async with start_echo() as server:
        stream = await server.client.completions.create(
            model="echo", prompt="a😀b", logprobs=2, echo=True, stream=True
        )
        pieces = [chunk.choices[0].logprobs async for chunk in stream]
    offsets = [offset for piece in pieces for offset in piece.text_offset]
    tokens = [token for piece in pieces for token in piece.tokens]
    assert offsets == [0, 1, 1, 1, 1, 2, 3, 4, 4, 4, 4, 5, 6]
    assert tokens[1] == "bytes:\\xf0"
    assert tokens[-1] == "<|im_end|>"
    assert all(len(top) == 2 for piece in pieces for top in piece.top_logprobs if top)


async def test_logprobs_of_nought_list_the_drawn_token_only(start_echo: Any) -> None:
    async with start_echo() as server:
        answer = await server.client.completions.create(model="echo", prompt="ab", logprobs=0)
    assert answer.choices[0].logprobs.top_logprobs is None
    assert answer.choices[0].logprobs.token_logprobs == [-0.5, -0.5, -0.5]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_chat_logprobs_carry_the_bytes_of_each_token(start_echo: Any, stream: bool) -> None:
    async with start_echo() as server:
        answer = await server.client.chat.completions.create(
            model="echo", messages=HI, logprobs=True, top_logprobs=2, stream=stream
        )
        parts = await chunks_of(answer) if stream else [answer]
    entries = [
        entry
        for part in parts
        if part.choices[0].logprobs
        for entry in part.choices[0].logprobs.content
    ]
    text = b"".join(bytes(entry.bytes) for entry in entries).decode()
    assert text == f"<|im_start|>{HI_ANSWER}<|im_end|>"
    assert all(len(entry.top_logprobs) == 2 for entry in entries)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_token_ids_are_returned_on_request(start_echo: Any, stream: bool) -> None:
    async with start_echo() as server:
        fields = {"model": "echo", "stream": stream, "extra_body": {"return_token_ids": True}}
        chat = await server.client.chat.completions.create(messages=HI, **fields)
        text = await server.client.completions.create(prompt="ab", **fields)
        chats = await chunks_of(chat) if stream else [chat]
        texts = await chunks_of(text) if stream else [text]
        encode = server.replica.tokenizer.encode
        hi, ab = (encode(t, add_special_tokens=False) for t in (HI_PROMPT, "ab"))
    assert chats[0].prompt_token_ids == list(hi)
    assert texts[0].choices[0].prompt_token_ids == list(ab)
    ids = [i for part in texts for i in part.choices[0].token_ids]
    assert ids == [*ab, 2]
    chat_ids = [i for part in chats for i in getattr(part.choices[0], "token_ids", None) or []]
    assert chat_ids == list(hi[: hi.index(2) + 1])


async def test_special_tokens_are_shown_on_request(start_echo: Any) -> None:
    async with start_echo() as server:
        answer = await server.client.chat.completions.create(
            model="echo", messages=HI, extra_body={"skip_special_tokens": False}
        )
    assert answer.choices[0].message.content == f"<|im_start|>{HI_ANSWER}"


async def test_eos_is_passed_over_on_request(start_echo: Any) -> None:
    async with start_echo() as server:
        answer = await server.client.completions.create(
            model="echo", prompt="ab", max_tokens=5, extra_body={"ignore_eos": True}
        )
    assert answer.choices[0].text == "ab"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5


@pytest.mark.parametrize(
    ("fields", "ending"),
    [
        ({}, "<|im_end|>\n<|im_start|>assistant\n"),
        ({"add_generation_prompt": False}, "<|im_end|>\n"),
        ({"continue_final_message": True}, "hi 😀"),
        ({"chat_template_kwargs": {"shout": "HEY"}}, "assistant\nHEY"),
    ],
    ids=str,
)
async def test_the_template_is_told_what_the_request_says(
    start_echo: Any, fields: dict[str, Any], ending: str
) -> None:
    async with start_echo() as server:
        answer = await server.client.chat.completions.create(
            model="echo", messages=HI, extra_body={"return_token_ids": True, **fields}
        )
        decode = server.replica.tokenizer.decode
        prompt = decode(answer.prompt_token_ids, skip_special_tokens=False)
    assert prompt.endswith(ending)


async def test_defaults_for_max_tokens_are_16_or_the_rest_of_the_context(start_echo: Any) -> None:
    async with start_echo() as server:
        url = f"{server.url}/v1"
        body = {"model": "echo", "prompt": "x" * 40, "ignore_eos": True}
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{url}/completions", json=body) as answer:
                assert (await answer.json())["usage"]["completion_tokens"] == 16
            near_the_end = body | {"prompt": [70] * 505}
            async with session.post(f"{url}/completions", json=near_the_end) as answer:
                assert (await answer.json())["usage"]["completion_tokens"] == 7
            chat = {"model": "echo", "messages": HI, "ignore_eos": True}
            async with session.post(f"{url}/chat/completions", json=chat) as answer:
                assert (await answer.json())["usage"]["total_tokens"] == 512


async def test_answers_tell_the_router_what_it_learns_from(start_echo: Any) -> None:
    async with start_echo() as server, aiohttp.ClientSession() as session:
        body = {"model": "echo", "prompt": ["ab", "cde"]}
        async with session.post(f"{server.url}/v1/completions", json=body) as answer:
            assert answer.headers["x-ascend-serving-prompt-tokens"] == "5"
            metrics = answer.headers["endpoint-load-metrics"]
            assert metrics.startswith("TEXT ")
            assert "named_metrics.pending_output_tokens=0" in metrics
        async with session.post(
            f"{server.url}/v1/completions", json=body | {"stream": True}
        ) as answer:
            assert answer.headers["x-ascend-serving-prompt-tokens"] == "5"
