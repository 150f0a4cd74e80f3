from __future__ import annotations

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving_http.errors import ApiError
from serving_router.call import Call, Route, parse_call
from serving_router.estimates import Estimates

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def call(route: Route = Route.CHAT, **fields: object) -> Call:
    return parse_call(route, orjson.dumps({"model": "m", **fields}))


@pytest.mark.parametrize(
    ("prompt", "prompts", "tokens"),
    [
        pytest.param("text", 1, None, id="string"),
        pytest.param(["a", "b"], 2, None, id="strings"),
        pytest.param([1, 2, 3], 1, 3, id="token ids"),
        pytest.param([[1, 2], [3]], 2, 3, id="lists of token ids"),
        pytest.param([], 1, None, id="empty"),
    ],
)
def test_prompts_are_counted(prompt: object, prompts: int, tokens: int | None) -> None:
    read = call(Route.COMPLETIONS, prompt=prompt)
    assert (read.prompts, read.prompt_tokens) == (prompts, tokens)


@pytest.mark.parametrize(
    ("route", "fields", "max_tokens"),
    [
        pytest.param(Route.CHAT, {}, None, id="chat: the rest of the context"),
        pytest.param(Route.COMPLETIONS, {}, 16, id="completions: 16"),
        pytest.param(Route.CHAT, {"max_tokens": 7}, 7, id="max_tokens"),
        pytest.param(
            Route.CHAT, {"max_tokens": 7, "max_completion_tokens": 8}, 8, id="the newer name first"
        ),
        pytest.param(Route.COMPLETIONS, {"max_tokens": 0}, 1, id="scoring costs 1"),
        pytest.param(Route.CHAT, {"max_tokens": -1}, None, id="negative"),
        pytest.param(Route.CHAT, {"max_tokens": "x"}, None, id="no number"),
        pytest.param(Route.CHAT, {"max_tokens": True}, None, id="a truth value"),
    ],
)
def test_max_tokens_is_read(
    route: Route, fields: dict[str, object], max_tokens: int | None
) -> None:
    assert call(route, **fields).max_tokens == max_tokens


def test_expected_output_is_the_total_over_choices_and_prompts() -> None:
    read = call(Route.COMPLETIONS, prompt=["a", "b"], n=3, max_tokens=10)
    assert Estimates().charge(read).output_tokens == 60


def test_unlearned_output_is_256_of_each_sequence() -> None:
    assert Estimates().charge(call(n=2)).output_tokens == 512


def test_token_ids_are_counted_and_each_choice_computes_them() -> None:
    assert Estimates().charge(call(Route.COMPLETIONS, prompt=[1, 2, 3], n=2)).prompt_tokens == 6


def test_output_is_learned_for_each_route() -> None:
    estimates = Estimates()
    for _ in range(20):
        estimates.learn_output(call(n=2), 20)
    assert estimates.charge(call()).output_tokens == 12
    assert estimates.charge(call(Route.COMPLETIONS, max_tokens=900)).output_tokens == 256


def test_prompt_ratio_is_learned() -> None:
    estimates = Estimates()
    long = call(messages=[{"role": "user", "content": "x" * 1000}])
    before = estimates.charge(long).prompt_tokens
    for _ in range(200):
        estimates.learn_prompt(long, long.prompt_bytes)
    assert estimates.charge(long).prompt_tokens > 3 * before


def test_tokenize_needs_no_model() -> None:
    assert parse_call(Route.TOKENIZE, b'{"prompt": "x"}').model is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@UNTIMED
@given(
    st.sampled_from(Route),
    st.dictionaries(st.sampled_from(["prompt", "n", "max_tokens"]), json_values),
)
def test_any_values_give_a_sane_charge(route: Route, fields: dict[str, object]) -> None:
    read = call(route, **fields)
    charge = Estimates().charge(read)
    assert read.sequences >= 1
    assert charge.output_tokens >= read.sequences
    assert charge.max_output_tokens is None or charge.output_tokens <= charge.max_output_tokens


@UNTIMED
@given(st.binary(max_size=64))
def test_bytes_that_are_no_json_are_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as refusal:
        parse_call(Route.CHAT, b"{" + body)
    assert refusal.value.status == 400
