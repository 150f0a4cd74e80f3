"""Models, tokens, health, metrics and everything that is refused, over a real tiny model."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import openai
import pytest

CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
TEXT: dict[str, Any] = {"model": "tiny", "prompt": "hi"}


def post(url: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", b"{", None),
        ("chat/completions", b"[]", None),
        ("chat/completions", {"messages": CHAT["messages"]}, "model"),
        ("chat/completions", {"model": "tiny"}, "messages"),
        ("chat/completions", CHAT | {"messages": []}, "messages"),
        (
            "chat/completions",
            CHAT | {"messages": [{"role": 1, "content": "a"}]},
            "messages[0].role",
        ),
        (
            "chat/completions",
            CHAT | {"messages": [{"role": "system", "content": "refuse"}]},
            "messages",
        ),
        ("chat/completions", CHAT | {"temperature": -1}, "temperature"),
        ("chat/completions", CHAT | {"tools": [{}]}, "tools"),
        ("chat/completions", CHAT | {"max_tokens": 0}, "max_tokens"),
        ("chat/completions", CHAT | {"min_tokens": 1000}, "min_tokens"),
        ("chat/completions", CHAT | {"stop": 5}, "stop"),
        ("completions", {"model": "tiny"}, "prompt"),
        ("completions", TEXT | {"prompt": ""}, "prompt"),
        ("completions", TEXT | {"prompt": [5, 320]}, "prompt"),
        ("completions", TEXT | {"prompt": [-1]}, "prompt"),
        ("completions", TEXT | {"prompt": [2**40]}, "prompt"),
        ("completions", TEXT | {"prompt": ["a"] * 2049}, "prompt"),
        ("completions", TEXT | {"prompt": ["a"] * 17, "n": 128}, "prompt"),
        ("completions", TEXT | {"max_tokens": 0}, "max_tokens"),
        ("completions", TEXT | {"max_tokens": 0, "echo": True}, "max_tokens"),
        ("completions", TEXT | {"min_tokens": 17}, "min_tokens"),
        ("completions", TEXT | {"logit_bias": {"320": 1}}, "logit_bias"),
        ("completions", TEXT | {"stop_token_ids": [320]}, "stop_token_ids"),
        ("completions", TEXT | {"n": 1e9}, "n"),
    ],
    ids=lambda value: str(value)[-60:],
)
def test_bad_input_names_its_field(replica: Any, path: str, body: Any, param: str | None) -> None:
    status, answer = post(f"{replica.url}/v1/{path}", body)
    assert status == 400
    assert set(answer) == {"error"}
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["param"] == param
    assert "\n" not in answer["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "numbers"),
    [
        ("completions", TEXT | {"prompt": [7] * 510, "max_tokens": 3}, ["510", "3", "512"]),
        ("completions", TEXT | {"prompt": [7] * 512}, ["512"]),
        ("completions", TEXT | {"prompt": [7] * 600}, ["600", "512"]),
        ("chat/completions", CHAT | {"max_tokens": 512}, ["512"]),
        ("chat/completions", CHAT | {"max_completion_tokens": 10**30}, ["512"]),
        (
            "chat/completions",
            CHAT | {"messages": [{"role": "user", "content": "z" * 600}]},
            ["512"],
        ),
    ],
    ids=["limit", "no-room", "prompt", "chat-limit", "absurd", "chat-prompt"],
)
def test_too_long_for_the_context_says_both_lengths(
    replica: Any, path: str, body: Any, numbers: list[str]
) -> None:
    status, answer = post(f"{replica.url}/v1/{path}", body)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert all(number in answer["error"]["message"] for number in numbers)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT | {"model": "gpt"}),
        ("/v1/completions", TEXT | {"model": "gpt"}),
        ("/tokenize", {"model": "gpt", "prompt": "a"}),
        ("/detokenize", {"model": "gpt", "tokens": []}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_unknown_model_is_not_found(replica: Any, path: str, body: Any) -> None:
    status, answer = post(replica.url + path, body)
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


def test_the_model_is_listed_with_its_context(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == "tiny"
    assert model.model_dump()["max_model_len"] == 512
    assert client.models.retrieve("tiny") == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("org/other")


def test_tokenize_and_detokenize_undo_each_other(replica: Any) -> None:
    status, answer = post(f"{replica.url}/tokenize", {"prompt": "hello 😀"})
    assert status == 200
    assert answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == 512
    assert post(f"{replica.url}/detokenize", {"tokens": answer["tokens"]})[1] == {
        "prompt": "hello 😀"
    }


def test_messages_are_tokenized_as_chat_does(replica: Any, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**CHAT, max_tokens=1)
    assert answer.usage is not None
    _, tokens = post(f"{replica.url}/tokenize", {"messages": CHAT["messages"]})
    assert tokens["count"] == answer.usage.prompt_tokens
    _, bare = post(
        f"{replica.url}/tokenize",
        {"messages": CHAT["messages"], "add_generation_prompt": False},
    )
    assert bare["count"] < tokens["count"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("tokenize", {}, "prompt"),
        ("tokenize", {"prompt": 5}, "prompt"),
        ("detokenize", {}, "tokens"),
        ("detokenize", {"tokens": [1, "a"]}, "tokens[1]"),
        ("detokenize", {"tokens": [320]}, "tokens"),
    ],
    ids=str,
)
def test_wrong_token_requests_name_their_field(
    replica: Any, path: str, body: Any, param: str
) -> None:
    status, answer = post(f"{replica.url}/{path}", body)
    assert (status, answer["error"]["param"]) == (400, param)


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/docs", "/openapi.json"])
def test_a_ready_replica_answers_everything(replica: Any, path: str) -> None:
    assert replica.get(path)[0] == 200


def test_openapi_describes_the_bodies(replica: Any) -> None:
    schema = json.loads(replica.get("/openapi.json")[1])
    body = schema["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert "temperature" in schema["components"]["schemas"][name]["properties"]


def test_unknown_paths_and_wrong_methods_are_errors_too(replica: Any) -> None:
    assert replica.get("/v1/nothing")[0] == 404
    assert replica.get("/v1/completions")[0] == 405


@pytest.mark.parametrize(
    "name",
    [
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_ratio",
        "prefix_cache_queries_total",
        "prefix_cache_hits_total",
        "num_preemptions_total",
        "prompt_tokens_total",
        "generation_tokens_total",
        "time_to_first_token_seconds_count",
        "inter_token_latency_seconds_count",
        "e2e_request_latency_seconds_count",
        "pending_tokens",
        'startup_phase_seconds{phase="warm_up"}',
    ],
)
def test_a_promised_metric_is_there(replica: Any, name: str) -> None:
    lines = replica.get("/metrics")[1].decode().splitlines()
    assert any(line.startswith(f"ascend_serving_{name} ") for line in lines)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_seed_fixes_the_answer_and_choice_j_has_the_next_ones(
    client: openai.OpenAI, stream: bool
) -> None:
    def texts(**fields: Any) -> list[str]:
        answer: Any = client.completions.create(
            model="tiny", prompt="hello", max_tokens=12, stream=stream, **fields
        )
        found = [""] * fields.get("n", 1)
        for part in answer if stream else [answer]:
            for choice in part.choices:
                found[choice.index] += choice.text
        return found

    three = texts(seed=5, n=3)
    assert three == [texts(seed=seed)[0] for seed in (5, 6, 7)]
    assert len(set(three)) == 3


def test_the_highest_seed_has_choices_too(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="a", seed=2**63 - 1, n=2, max_tokens=2)
    assert len(answer.choices) == 2


def test_a_bias_of_100_decides_the_answer(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="tiny",
        prompt="a",
        max_tokens=5,
        logit_bias={"70": 100},
        extra_body={"return_token_ids": True},
    )
    assert answer.choices[0].model_dump()["token_ids"] == [70] * 5
