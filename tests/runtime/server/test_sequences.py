"""From requests to sampling parameters, without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving_contract.openai import ChatRequest, CompletionRequest
from serving_runtime.errors import InvalidModel, InvalidRequest
from serving_runtime.model_files import SamplingDefaults, read_sampling_defaults
from serving_runtime.request import SamplingParams
from serving_runtime.server.sequences import ModelTraits, chat_sequences, completion_sequences

TRAITS = ModelTraits(
    max_model_len=64,
    vocab_size=100,
    eos_token_ids=frozenset({2, 500}),
    defaults=SamplingDefaults(temperature=0.6, top_p=0.9, top_k=20, repetition_penalty=1.1),
)


def sampling_of(**fields: Any) -> SamplingParams:
    request = CompletionRequest.model_validate({"model": "m", "prompt": "a", **fields})
    return completion_sequences(request, ((1, 2, 3),), traits=TRAITS, seed=7)[0].sampling


def test_a_request_that_says_nothing_gets_the_models_defaults() -> None:
    sampling = sampling_of()
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.6, 0.9, 20)
    assert sampling.repetition_penalty == 1.1
    assert sampling.max_tokens == 16
    assert sampling.seed == 7


def test_what_a_request_says_comes_first_even_when_it_is_nothing() -> None:
    sampling = sampling_of(temperature=0, top_k=0, top_p=1)
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0, 1, 0)


@pytest.mark.parametrize(("asked", "used"), [(-1, 0), (0, 0), (5, 5), (10**12, 100)])
def test_top_k_is_off_or_within_the_vocabulary(asked: int, used: int) -> None:
    assert sampling_of(top_k=asked).top_k == used


def test_eos_outside_the_models_vocabulary_cannot_be_drawn() -> None:
    assert sampling_of().eos_token_ids == {2}
    assert sampling_of(ignore_eos=True).eos_token_ids == frozenset()


@pytest.mark.parametrize(
    ("seed", "seeds"), [(5, [5, 6, 7]), (2**63 - 2, [2**63 - 2, 2**63 - 1, -(2**63)])]
)
def test_choice_j_of_every_prompt_has_seed_plus_j(seed: int, seeds: list[int]) -> None:
    request = CompletionRequest.model_validate({"model": "m", "prompt": ["a", "b"], "n": 3})
    specs = completion_sequences(request, ((1,), (2,)), traits=TRAITS, seed=seed)
    assert [spec.sampling.seed for spec in specs] == seeds * 2
    assert [spec.prompt_token_ids for spec in specs] == [(1,)] * 3 + [(2,)] * 3


def test_a_chat_may_use_the_rest_of_the_context() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    (spec,) = chat_sequences(ChatRequest.model_validate(body), (1,) * 60, traits=TRAITS, seed=0)
    assert spec.sampling.max_tokens == 4
    assert spec.sampling.logprobs is None


def test_a_scored_prompt_may_fill_the_context() -> None:
    request = CompletionRequest.model_validate(
        {"model": "m", "prompt": "a", "max_tokens": 0, "echo": True, "logprobs": 3}
    )
    (spec,) = completion_sequences(request, ((1,) * 64,), traits=TRAITS, seed=0)
    assert spec.scores_only
    assert spec.sampling.prompt_logprobs == 3


def test_absent_and_null_defaults_cut_nothing(tmp_path: Path) -> None:
    assert read_sampling_defaults(tmp_path) == SamplingDefaults()
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"temperature": None, "top_k": 40, "top_p": 0.8}))
    assert read_sampling_defaults(tmp_path) == SamplingDefaults(top_k=40, top_p=0.8)


@pytest.mark.parametrize("content", ["{", "[]", '{"top_p": "high"}', '{"top_k": true}'])
def test_corrupt_defaults_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(InvalidModel):
        read_sampling_defaults(tmp_path)


def test_min_tokens_needs_a_token_that_does_not_end_the_text() -> None:
    traits = ModelTraits(
        max_model_len=64,
        vocab_size=8,
        eos_token_ids=frozenset({7}),
        defaults=SamplingDefaults(),
    )
    fields = {"model": "m", "prompt": [1], "max_tokens": 3, "stop_token_ids": list(range(7))}
    request = CompletionRequest.model_validate(fields | {"min_tokens": 1})
    with pytest.raises(InvalidRequest) as caught:
        completion_sequences(request, ((1,),), traits=traits, seed=0)
    assert caught.value.param == "min_tokens"
