"""A reader that applies the lines of a stream always knows what a whole report says."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_contract.load import FINISHED_KEPT_S, LoadReport
from serving_runtime.load import MAX_UNTOLD_IDS, Load, LoadBoard, RecentRate

EVENTS = st.lists(st.tuples(st.sampled_from(["accept", "finish", "read"]), st.integers(0, 5)))


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Reader:
    """What a router does with the lines."""

    unfinished: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)
    seq: int = -1

    def apply(self, report: LoadReport) -> None:
        assert report.seq == self.seq + 1
        self.seq = report.seq
        if report.seq == 0:
            self.unfinished, self.finished = set(), set()
        self.unfinished |= set(report.accepted)
        self.unfinished -= set(report.finished)
        self.finished |= set(report.finished)


def make_board(clock: Clock | None = None) -> LoadBoard:
    return LoadBoard(epoch="e", measure=Load, clock=clock or Clock())


def play(board: LoadBoard, open_ids: list[str], event: str, number: int, name: str) -> None:
    if event == "accept":
        board.accept(name)
        open_ids.append(name)
    elif event == "finish" and open_ids:
        board.finish(open_ids.pop(number % len(open_ids)))


@settings(max_examples=30, deadline=None)
@given(EVENTS, EVENTS)
def test_the_lines_of_a_stream_add_up_to_the_whole(
    before: list[tuple[str, int]], during: list[tuple[str, int]]
) -> None:
    async def scenario() -> None:
        board, reader, open_ids = make_board(), Reader(), list[str]()
        for i, (event, number) in enumerate(before):
            play(board, open_ids, event, number, f"before-{i}")
        async with aclosing(board.watch()) as lines:
            reader.apply(await anext(lines))
            for i, (event, number) in enumerate(during):
                if event == "read":
                    board.changed()
                    reader.apply(await anext(lines))
                    assert reader.unfinished == set(board.whole().accepted)
                play(board, open_ids, event, number, f"during-{i}")
            board.close()
            async for line in lines:
                reader.apply(line)
        whole = board.whole()
        assert reader.unfinished == set(whole.accepted) == set(open_ids)
        assert reader.finished == set(whole.finished)

    asyncio.run(scenario())


def test_whole_reports_forget_what_finished_long_ago() -> None:
    clock = Clock()
    board = make_board(clock)
    board.accept("a")
    board.finish("a")
    assert board.whole().finished == ("a",)
    clock.now = FINISHED_KEPT_S + 1
    assert board.whole().finished == ()


def test_an_id_used_twice_is_unfinished_until_both_ended() -> None:
    board = make_board()
    board.accept("a")
    board.accept("a")
    board.finish("a")
    assert board.whole().accepted == ("a",)
    board.finish("a")
    assert board.whole().accepted == ()


async def test_a_stream_without_changes_still_reports() -> None:
    board = make_board()
    async with aclosing(board.watch()) as lines:
        assert [(await anext(lines)).seq for _ in range(3)] == [0, 1, 2]


async def test_a_closed_board_ends_its_streams_after_a_last_report() -> None:
    board = make_board()
    async with aclosing(board.watch()) as lines:
        await anext(lines)
        board.accept("a")
        board.close()
        assert [line.accepted async for line in lines] == [("a",)]


async def test_a_reader_that_leaves_too_much_untold_is_cut_off() -> None:
    board = make_board()
    async with aclosing(board.watch()) as lines:
        await anext(lines)
        for i in range(MAX_UNTOLD_IDS + 1):
            board.accept(str(i))
        assert [line async for line in lines] == []


async def test_many_reports_with_nothing_running_leave_nothing_behind() -> None:
    clock = Clock()
    board = make_board(clock)
    for i in range(30_000):
        clock.now += 0.01
        board.accept(str(i))
        board.finish(str(i))
        board.whole()
    assert len(board.whole().finished) <= FINISHED_KEPT_S / 0.01 + 1


def test_a_steady_rate_is_seen_and_fades() -> None:
    rate = RecentRate()
    for tick in range(3000):
        rate.add(2, tick / 100)
    assert rate.value(30.0) == pytest.approx(200, rel=0.01)
    assert rate.value(300.0) == pytest.approx(0, abs=1e-6)
    assert RecentRate().value(0.0) == 0
