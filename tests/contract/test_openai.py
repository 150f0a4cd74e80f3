"""The requests of the OpenAI API, field by field."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, JsonValue, ValidationError

from serving_contract.openai import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from serving_contract.openai_answers import ChatChunk, ChatChunkChoice, MessageDelta

Fields = dict[str, JsonValue]
CHAT: Fields = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION: Fields = {"model": "m", "prompt": "hi"}


def complaint(model: type[BaseModel], fields: Fields) -> tuple[tuple[int | str, ...], str]:
    with pytest.raises(ValidationError) as refusal:
        model.model_validate_json(json.dumps(fields))
    first = refusal.value.errors()[0]
    return first["loc"], first["msg"]


def chat(**fields: JsonValue) -> ChatRequest:
    return ChatRequest.model_validate_json(json.dumps(CHAT | fields))


def completion(**fields: JsonValue) -> CompletionRequest:
    return CompletionRequest.model_validate_json(json.dumps(COMPLETION | fields))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", 129),
        ("n", 1.5),
        ("n", True),
        ("n", "1"),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", True),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_p", 1.01),
        ("top_k", -2),
        ("top_k", 1.5),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -2.5),
        ("repetition_penalty", 0),
        ("seed", 2**63),
        ("seed", -(2**63) - 1),
        ("seed", "1"),
        ("max_tokens", -1),
        ("min_tokens", -1),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", [1]),
        ("stop", {"a": 1}),
        ("stop", 5),
        ("stop", ["x"] * 17),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", ["1"]),
        ("logit_bias", {"1": 100.5}),
        ("logit_bias", {"1": -100.5}),
        ("logit_bias", {"one": 1}),
        ("logit_bias", {"05": 1}),
        ("logit_bias", {"9" * 5000: 1}),
        ("logit_bias", [1]),
        ("stream", 1),
        ("stream_options", {}),
        ("ignore_eos", "yes"),
        ("skip_special_tokens", 0),
        ("include_stop_str_in_output", 1),
        ("return_token_ids", "true"),
        ("add_special_tokens", 1),
        ("model", None),
        ("model", 5),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("model", "valid"), [(ChatRequest, CHAT), (CompletionRequest, COMPLETION)], ids=["chat", "text"]
)
def test_a_value_out_of_bounds_names_its_field(
    model: type[BaseModel], valid: Fields, field: str, value: JsonValue
) -> None:
    location, _ = complaint(model, valid | {field: value})
    assert location[0] == field


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 128},
        {"temperature": 0},
        {"temperature": 2},
        {"top_p": 1},
        {"top_k": -1},
        {"top_k": 0},
        {"min_p": 1},
        {"seed": -(2**63)},
        {"stop": "x"},
        {"stop": ["x"] * 16},
        {"stop": None},
        {"logit_bias": {"5": -100}},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": None, "stream_options": None},
        {"user": 5, "metadata": [], "store": "x", "service_tier": {}},
        {"a_field_nobody_knows": 1},
        {"max_completion_tokens": 5, "max_tokens": 5},
    ],
    ids=str,
)
def test_values_within_bounds_and_unknown_fields_are_taken(fields: Fields) -> None:
    chat(**fields)
    completion(**fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("tool_choice", "required"),
        ("functions", [{}]),
        ("function_call", {"name": "f"}),
        ("parallel_tool_calls", 1),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["text", "audio"]),
        ("audio", {}),
        ("prediction", {"type": "content"}),
        ("reasoning_effort", "low"),
        ("verbosity", "high"),
        ("web_search_options", {}),
    ],
)
def test_what_openai_defines_and_we_do_not_is_refused_by_name(field: str, value: JsonValue) -> None:
    location, message = complaint(ChatRequest, CHAT | {field: value})
    assert location == (field,)
    assert "not implemented" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", None),
        ("tools", []),
        ("tool_choice", "none"),
        ("tool_choice", "auto"),
        ("parallel_tool_calls", True),
        ("response_format", {"type": "text"}),
        ("modalities", ["text"]),
        ("audio", None),
        ("reasoning_effort", None),
        ("verbosity", "medium"),
    ],
)
def test_what_has_no_effect_is_taken(field: str, value: JsonValue) -> None:
    chat(**{field: value})


@pytest.mark.parametrize(("field", "value"), [("suffix", "end"), ("best_of", 2), ("best_of", "1")])
def test_completions_refuse_what_is_not_implemented(field: str, value: JsonValue) -> None:
    assert complaint(CompletionRequest, COMPLETION | {field: value})[0] == (field,)


def test_best_of_that_equals_n_has_no_effect() -> None:
    completion(best_of=1)
    completion(n=3, best_of=3)


@pytest.mark.parametrize(
    ("messages", "location"),
    [
        ([], ("messages",)),
        ("hi", ("messages",)),
        ([{"role": "user"}], ("messages", 0, "content")),
        ([{"content": "hi"}], ("messages", 0, "role")),
        ([{"role": "tool", "content": "hi"}], ("messages", 0, "role")),
        ([{"role": "user", "content": None}], ("messages", 0, "content")),
        ([{"role": "user", "content": 5}], ("messages", 0, "content")),
        ([{"role": "user", "content": []}], ("messages", 0, "content")),
        ([{"role": "user", "content": [{"type": "image_url"}]}], ("messages", 0, "content")),
        ([{"role": "user", "content": [{"type": "text"}]}], ("messages", 0, "content")),
        (
            [{"role": "assistant", "content": "a", "tool_calls": [{}]}],
            ("messages", 0, "tool_calls"),
        ),
    ],
    ids=str,
)
def test_a_wrong_message_is_named(messages: JsonValue, location: tuple[int | str, ...]) -> None:
    assert complaint(ChatRequest, CHAT | {"messages": messages})[0] == location


def test_text_parts_are_joined_by_a_line_break() -> None:
    parts: JsonValue = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert chat(messages=[{"role": "user", "content": parts}]).messages[0].content == "a\nb"


def test_one_text_part_equals_the_plain_string() -> None:
    parts: JsonValue = [{"type": "text", "text": "hi"}]
    assert chat(messages=[{"role": "user", "content": parts}]).messages == chat().messages


def test_top_logprobs_need_logprobs() -> None:
    assert complaint(ChatRequest, CHAT | {"top_logprobs": 2})[0] == ("top_logprobs",)
    chat(logprobs=True, top_logprobs=20)


@pytest.mark.parametrize("top", [-1, 21])
def test_logprobs_have_bounds(top: int) -> None:
    fields: Fields = {"logprobs": True, "top_logprobs": top}
    assert complaint(ChatRequest, CHAT | fields)[0] == ("top_logprobs",)
    assert complaint(CompletionRequest, COMPLETION | {"logprobs": top})[0] == ("logprobs",)


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_min_tokens_above_the_limit_are_refused(limit: str) -> None:
    assert complaint(ChatRequest, CHAT | {limit: 2, "min_tokens": 3})[0] == ("min_tokens",)


def test_two_limits_that_contradict_each_other_are_refused() -> None:
    fields: Fields = {"max_tokens": 2, "max_completion_tokens": 3}
    assert complaint(ChatRequest, CHAT | fields)[0] == ("max_completion_tokens",)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
        ("", ("",)),
    ],
    ids=str,
)
def test_a_prompt_comes_in_four_forms(prompt: JsonValue, prompts: tuple[object, ...]) -> None:
    assert completion(prompt=prompt).prompt == prompts


@pytest.mark.parametrize(
    "prompt", [[], [[]], [1, "a"], [True], 5, None, {"a": 1}, [[1, "x"]], [["a"]]], ids=str
)
def test_any_other_prompt_is_refused(prompt: JsonValue) -> None:
    assert complaint(CompletionRequest, COMPLETION | {"prompt": prompt})[0] == ("prompt",)


@pytest.mark.parametrize("fields", [{}, {"prompt": "a", "messages": CHAT["messages"]}], ids=str)
def test_tokenize_takes_a_prompt_or_messages(fields: Fields) -> None:
    assert complaint(TokenizeRequest, fields)[0] == ("prompt",)


def test_detokenize_takes_token_ids_only() -> None:
    assert complaint(DetokenizeRequest, {"tokens": ["a"]})[0] == ("tokens", 0)


def test_an_answer_says_null_where_openai_does_and_leaves_out_the_rest() -> None:
    choice = ChatChunkChoice(
        index=0, delta=MessageDelta(content="a"), logprobs=None, finish_reason=None
    )
    chunk = ChatChunk(
        id="1", object="o", created=1, model="m", system_fingerprint=None, choices=[choice]
    )
    assert json.loads(chunk.to_json()) == {
        "id": "1",
        "object": "o",
        "created": 1,
        "model": "m",
        "system_fingerprint": None,
        "choices": [
            {"index": 0, "delta": {"content": "a"}, "logprobs": None, "finish_reason": None}
        ],
    }
