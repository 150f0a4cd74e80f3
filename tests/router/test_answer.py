from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving_router.answer import StreamReader, UnaryReader, Usage

EVENTS = [
    b'data: {"choices": [{"delta": {"content": "\xc3\xbc"}}], "usage": null}\n\n',
    b": a comment\n\n",
    b'data: {"choices": [{"delta": {"content": "data: "}}]}\r\n\r\n',
    b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}}\n\n',
    b"data: [DONE]\n\n",
]
STREAM = b"".join(EVENTS)

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@UNTIMED
@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_stream_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    borders = [0, *sorted(cuts), len(STREAM)]
    reader = StreamReader()
    passed, events = b"", 0
    for start, end in itertools.pairwise(borders):
        piece, count = reader.feed(STREAM[start:end])
        passed, events = passed + piece, events + count
        assert not piece or piece.endswith(b"\n")
    assert passed + reader.end() == STREAM
    assert events == 3
    assert reader.is_whole
    assert reader.usage() == Usage(5, 9)


def test_stream_without_usage_counts_its_events() -> None:
    reader = StreamReader()
    reader.feed(EVENTS[0] * 7 + EVENTS[-1])
    assert reader.usage() == Usage(None, 7)


def test_stream_without_done_is_not_whole() -> None:
    reader = StreamReader()
    reader.feed(EVENTS[0])
    assert not reader.is_whole


def test_stream_that_ends_with_an_error_is_whole_and_teaches_nothing() -> None:
    reader = StreamReader()
    reader.feed(EVENTS[0] + b'data: {"error": {"message": "x"}}\n\n')
    assert reader.is_whole
    assert reader.usage() == Usage()


def test_endless_line_is_not_kept() -> None:
    reader = StreamReader()
    passed = b"".join(reader.feed(b"x" * 100_000)[0] for _ in range(50))
    assert len(passed) > 3_000_000


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        pytest.param(
            {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}, Usage(1, 2), id="both"
        ),
        pytest.param({"usage": {"prompt_tokens": 1}}, Usage(1, None), id="one"),
        pytest.param({"usage": {"prompt_tokens": "x"}}, Usage(), id="no number"),
        pytest.param({"usage": None}, Usage(), id="null"),
        pytest.param({}, Usage(), id="absent"),
        pytest.param([1], Usage(), id="not an object"),
    ],
)
def test_unary_usage_is_read(body: object, usage: Usage) -> None:
    reader = UnaryReader()
    data = json.dumps(body).encode()
    assert reader.feed(data[:5])[0] + reader.feed(data[5:])[0] == data
    assert reader.usage() == usage


def test_unary_body_that_is_not_json_has_no_usage() -> None:
    reader = UnaryReader()
    reader.feed(b"<html>")
    assert reader.usage() == Usage()
