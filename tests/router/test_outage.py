from __future__ import annotations

import logging

import pytest

from serving_router.errors import DiscoveryFailed, Forbidden, HistoryGone, Unauthorized, WatchSilent
from serving_router.outage import FIRST_PAUSE_S, LONG_LIVED_S, MAX_PAUSE_S, Outage

DOWN = DiscoveryFailed("the API server cannot be asked: refused")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def longest(low: float, high: float) -> float:
    return high


def shortest(low: float, high: float) -> float:
    return low


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pauses(outage: Outage, *errors: DiscoveryFailed | None) -> list[float]:
    seen = []
    for error in errors:
        if error is not None:
            outage.failed(error)
        seen.append(outage.pause_s())
    return seen


def test_pauses_double_from_half_a_second_to_30_s(clock: Clock) -> None:
    seen = pauses(Outage(clock=clock, uniform=longest), *[DOWN] * 9)
    assert seen[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert seen[-1] == MAX_PAUSE_S


def test_pauses_have_jitter(clock: Clock) -> None:
    assert pauses(Outage(clock=clock, uniform=shortest), DOWN) == [FIRST_PAUSE_S / 2]


def test_watch_that_brought_something_begins_again_with_the_shortest(clock: Clock) -> None:
    outage = Outage(clock=clock, uniform=longest)
    pauses(outage, *[DOWN] * 9)
    outage.watching()
    outage.heard()
    assert pauses(outage, None) == [FIRST_PAUSE_S]


def test_watch_that_lasted_begins_again_with_the_shortest(clock: Clock) -> None:
    outage = Outage(clock=clock, uniform=longest)
    pauses(outage, *[DOWN] * 9)
    outage.watching()
    clock.now += LONG_LIVED_S
    assert pauses(outage, None) == [FIRST_PAUSE_S]


def test_watches_that_end_at_once_are_no_storm(clock: Clock) -> None:
    outage = Outage(clock=clock, uniform=longest)
    seen = []
    for _ in range(9):
        outage.watching()
        seen += pauses(outage, None)
    assert seen[-1] == MAX_PAUSE_S


def test_history_that_is_gone_again_and_again_is_no_storm(clock: Clock) -> None:
    outage = Outage(clock=clock, uniform=longest)
    seen = []
    for _ in range(9):
        outage.over()
        outage.watching()
        seen += pauses(outage, HistoryGone("too old"))
    assert seen[-1] == MAX_PAUSE_S


def test_replaced_token_is_tried_at_once_and_then_patiently(clock: Clock) -> None:
    outage = Outage(clock=clock, uniform=longest)
    refused = Unauthorized("401")
    assert pauses(outage, refused, refused, refused) == [0.0, FIRST_PAUSE_S, 2 * FIRST_PAUSE_S]
    outage.over()
    assert pauses(outage, refused) == [0.0]


def test_retry_after_is_obeyed_and_never_undercut(clock: Clock) -> None:
    throttled = DiscoveryFailed("429", retry_after_s=7)
    assert pauses(Outage(clock=clock, uniform=shortest), throttled) == [7.0]
    assert pauses(Outage(clock=clock, uniform=longest), throttled) == [10.5]


def test_each_kind_of_failure_is_logged_once_and_so_is_the_end(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage(clock=clock, uniform=longest)
    with caplog.at_level(logging.INFO, "serving_router.outage"):
        pauses(outage, DOWN, DOWN, DiscoveryFailed("503"), DOWN)
        clock.now += 90
        outage.over()
        outage.over()
    assert [record.getMessage() for record in caplog.records] == [
        "the API server cannot be asked: refused; the last known replicas stay",
        "503; the last known replicas stay",
        "the API server cannot be asked: refused; the last known replicas stay",
        "the API server answers again after 90.0 s",
    ]


LEVELS = {
    "a right that is missing": (Forbidden("403"), logging.ERROR),
    "an outage": (DOWN, logging.WARNING),
    "history that is gone": (HistoryGone("410"), logging.INFO),
    "silence": (WatchSilent("nothing"), logging.DEBUG),
}


@pytest.mark.parametrize(("error", "level"), LEVELS.values(), ids=LEVELS.keys())
def test_failure_is_as_loud_as_it_is_grave(
    clock: Clock, caplog: pytest.LogCaptureFixture, error: DiscoveryFailed, level: int
) -> None:
    with caplog.at_level(logging.DEBUG, "serving_router.outage"):
        Outage(clock=clock, uniform=longest).failed(error)
    assert [record.levelno for record in caplog.records] == [level]
