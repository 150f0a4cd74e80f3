"""Stop strings do not depend on how the text is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_runtime.stop_strings import StopChecker

TEXT = st.text("abc", max_size=30)
STOPS = st.lists(st.text("abc", min_size=1, max_size=5), max_size=4)


def run(pieces: list[str], stops: list[str], *, include: bool = False) -> tuple[str, str | None]:
    checker = StopChecker(stops, include_stop_string=include)
    shown = "".join(checker.push(piece) for piece in pieces)
    return shown + checker.flush(), checker.matched


def cut(text: str, places: list[int]) -> list[str]:
    borders = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(borders)]


@given(TEXT, STOPS, st.lists(st.integers(0, 100)), st.booleans())
def test_any_split_gives_the_same_text(
    text: str, stops: list[str], places: list[int], include: bool
) -> None:
    assert run(cut(text, places), stops, include=include) == run([text], stops, include=include)


@given(TEXT, STOPS)
def test_no_part_of_a_stop_string_is_ever_shown(text: str, stops: list[str]) -> None:
    checker = StopChecker(stops, include_stop_string=False)
    shown = ""
    for i, character in enumerate(text):
        shown += checker.push(character)
        held = len(text[: i + 1]) - len(shown)
        if checker.matched is not None:
            assert text[: i + 1].endswith(checker.matched)
            assert shown == text[: i + 1 - len(checker.matched)]
            return
        unseen = shown[len(shown) - 4 :] if held == 0 else ""
        assert not any(unseen.endswith(stop[:n]) for stop in stops for n in range(1, len(stop)))


@given(TEXT, STOPS)
def test_without_a_match_nothing_is_lost(text: str, stops: list[str]) -> None:
    shown, matched = run(list(text), stops)
    if matched is None:
        assert shown == text
        assert not any(stop in text for stop in stops)
    else:
        assert text.startswith(shown + matched)


@pytest.mark.parametrize(
    ("stops", "shown", "matched"),
    [
        (["cd"], "ab", "cd"),
        (["e", "cd"], "ab", "cd"),
        (["bcde", "cd"], "ab", "cd"),
        (["d", "cd"], "ab", "cd"),
        (["x"], "abcdef", None),
    ],
    ids=["one", "first", "first-to-end", "longest", "none"],
)
def test_the_match_that_ends_first_wins(stops: list[str], shown: str, matched: str | None) -> None:
    assert run(["abc", "def"], stops) == (shown, matched)


def test_an_included_stop_string_is_shown_whole_and_last() -> None:
    assert run(["ab", "cd", "ef"], ["cd"], include=True) == ("abcd", "cd")
