from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving_contract.load import LoadReport
from serving_router.errors import RouterError
from serving_router.ledger import Charge, Reservation
from serving_router.load_table import LoadTable
from serving_router.replica import Replica, State

A, B = Replica(url="http://a:1", pod="a"), Replica(url="http://b:1", pod="b")
A_AGAIN = replace(A, uid="another")
"""Another pod that got the address of A."""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def report(
    *,
    epoch: str = "e",
    prompt: int = 0,
    output: int = 0,
    draining: bool = False,
    accepted: tuple[str, ...] = (),
    finished: tuple[str, ...] = (),
) -> LoadReport:
    return LoadReport(
        epoch=epoch,
        seq=0,
        pending_prompt_tokens=prompt,
        pending_output_tokens=output,
        running=1,
        waiting=2,
        kv_blocks_used=0,
        kv_blocks_total=8,
        tokens_per_second=50.0,
        draining=draining,
        accepted=accepted,
        finished=finished,
    )


def table_of(*replicas: Replica) -> tuple[LoadTable, Clock]:
    clock = Clock()
    table = LoadTable(clock)
    table.replace(replicas)
    return table, clock


def reserve(
    table: LoadTable, url: str = A.url, *, prompt: int = 10, output: int = 20
) -> Reservation:
    charge = Charge(prompt_tokens=prompt, output_tokens=output)
    return table.reserve(charge, lambda them: next(it for it in them if it.url == url))


def owed(table: LoadTable, url: str = A.url) -> int:
    return next(row.owed_tokens for row in table.loads() if row.url == url)


def states(table: LoadTable) -> list[State]:
    return [row.state for row in table.loads()]


def routable(table: LoadTable) -> list[str]:
    return [candidate.url for candidate in table.candidates()]


def test_load_is_the_report_and_what_it_does_not_list() -> None:
    table, _ = table_of(A)
    table.observe(A, report(prompt=100, output=200))
    reserve(table)
    assert owed(table) == 330


def test_accepted_reservation_is_counted_by_the_report_alone() -> None:
    table, _ = table_of(A)
    table.observe(A, report())
    reservation = reserve(table)
    table.observe(A, report(prompt=7, accepted=(reservation.id,)))
    assert owed(table) == 7


def test_reservation_that_finished_between_two_lines_is_released() -> None:
    table, _ = table_of(A)
    reservation = reserve(table)
    table.observe(A, report(finished=(reservation.id,)))
    assert owed(table) == 0


def test_unknown_id_in_a_report_is_ignored() -> None:
    table, _ = table_of(A)
    reserve(table)
    table.observe(A, report(accepted=("another router's",), finished=("forgotten",)))
    assert owed(table) == 30


def test_end_of_the_answer_releases() -> None:
    table, _ = table_of(A)
    with reserve(table):
        assert owed(table) == 30
    assert owed(table) == 0


def test_without_reports_the_prompt_falls_at_the_first_token_and_output_with_each() -> None:
    table, _ = table_of(A)
    reservation = reserve(table, prompt=10, output=20)
    seen = [owed(table)]
    for _ in range(3):
        reservation.receive(1)
        seen.append(owed(table))
    assert seen == [30, 19, 18, 17]


def test_unfinished_sequence_always_owes_something() -> None:
    table, _ = table_of(A)
    reservation = reserve(table, prompt=1, output=2)
    for _ in range(50):
        reservation.receive(1)
        assert owed(table) >= 1


def test_expectation_is_not_raised_above_max_tokens() -> None:
    table, _ = table_of(A)
    charge = Charge(prompt_tokens=1, output_tokens=2, max_output_tokens=3)
    reservation = table.reserve(charge, lambda them: them[0])
    reservation.receive(3)
    reservation.receive(3)
    assert owed(table) == 0


def test_stale_number_decays_to_the_ledger() -> None:
    table, clock = table_of(A)
    table.observe(A, report(output=1000))
    reserve(table)
    seen = []
    for _ in range(12):
        clock.now += 2
        seen.append(owed(table))
    assert seen[0] == 1030
    assert seen == sorted(seen, reverse=True)
    assert 30 <= seen[-1] <= 31
    assert states(table) == [State.STALE]
    assert routable(table) == [A.url]


def test_stale_ledger_still_counts_what_was_acknowledged() -> None:
    table, clock = table_of(A)
    reservation = reserve(table)
    table.observe(A, report(prompt=10, output=20, accepted=(reservation.id,)))
    clock.now += 60
    assert owed(table) == 30


def test_new_epoch_forgets_the_old_numbers_and_reservations() -> None:
    table, _ = table_of(A)
    table.observe(A, report(output=1000))
    reservation = reserve(table)
    table.observe(A, report(epoch="f"))
    assert owed(table) == 0
    reservation.receive(1)
    assert owed(table) == 0
    reservation.release()
    assert owed(table) == 0


def test_new_epoch_loses_what_the_old_process_had_accepted() -> None:
    table, _ = table_of(A)
    table.observe(A, report())
    accepted, on_its_way = reserve(table), reserve(table)
    lost: list[tuple[str, RouterError]] = []
    accepted.on_lost = lambda error: lost.append(("accepted", error))
    on_its_way.on_lost = lambda error: lost.append(("on its way", error))
    table.observe(A, report(accepted=(accepted.id,)))
    table.observe(A, report(epoch="f"))
    assert [(who, str(error)) for who, error in lost] == [("accepted", "replica a restarted")]


def test_removed_replica_takes_its_charges_along() -> None:
    table, _ = table_of(A, B)
    reservation = reserve(table)
    table.replace([B])
    table.replace([A, B])
    assert owed(table) == 0
    reservation.receive(1)
    reservation.release()
    assert [row.in_flight for row in table.loads()] == [0, 0]


def test_pod_that_gets_an_address_after_another_inherits_nothing() -> None:
    table, _ = table_of(A)
    table.observe(A, report(output=1000))
    reservation = reserve(table)
    table.mark_unreachable(A)
    table.replace([A_AGAIN])
    assert (owed(table), states(table)) == (0, [State.READY])
    reservation.receive(1)
    assert owed(table) == 0


def test_late_word_of_a_pod_is_not_taken_for_its_successors() -> None:
    table, _ = table_of(A_AGAIN)
    table.observe(A, report(output=1000))
    table.mark_unreachable(A)
    assert (owed(table), states(table)) == (0, [State.READY])


def test_same_pod_keeps_its_account_whatever_its_condition() -> None:
    table, _ = table_of(A)
    table.observe(A, report(output=1000))
    reservation = reserve(table)
    table.replace([replace(A, ready=False, terminating=True)])
    assert (owed(table), states(table)) == (1030, [State.DRAINING])
    assert reservation.replica.terminating


def test_draining_replica_is_not_chosen() -> None:
    table, _ = table_of(A, B)
    table.observe(A, report(draining=True))
    assert states(table) == [State.DRAINING, State.READY]
    assert routable(table) == [B.url]


def test_terminating_replica_serves_when_none_is_ready() -> None:
    leaving = Replica(url=A.url, ready=False, terminating=True)
    table, _ = table_of(leaving, B)
    assert routable(table) == [B.url]
    table.mark_unreachable(B)
    assert routable(table) == [A.url]
    table.observe(A, report(draining=True))
    assert routable(table) == []


def test_serving_replicas_are_used_when_all_turn_unready_at_once() -> None:
    serving = [replace(replica, ready=False, serving=True) for replica in (A, B)]
    table, _ = table_of(*serving)
    assert sorted(routable(table)) == [A.url, B.url]
    table.replace([replace(A, ready=False, serving=False), serving[1]])
    assert routable(table) == [B.url]


def test_ready_replica_without_a_report_is_routable() -> None:
    table, _ = table_of(A, B)
    table.observe(A, report(output=1000))
    assert routable(table) == [A.url, B.url]


def test_replica_that_left_but_ends_its_streams_is_draining() -> None:
    table, _ = table_of(replace(A, ready=False, serving=False, terminating=True), B)
    assert states(table) == [State.DRAINING, State.READY]
    table.mark_unreachable(B)
    assert routable(table) == []


def test_replica_that_is_not_ready_is_down() -> None:
    table, _ = table_of(Replica(url=A.url, ready=False, serving=False))
    assert states(table) == [State.DOWN]
    assert not table.has_ready_replica
    assert routable(table) == []


def test_unreachable_replica_is_back_with_its_next_report() -> None:
    table, _ = table_of(A)
    table.mark_unreachable(A)
    assert states(table) == [State.DOWN]
    table.observe(A, report())
    assert states(table) == [State.READY]


def test_unreachable_replica_is_back_when_it_answers_without_reports() -> None:
    table, _ = table_of(A)
    table.mark_unreachable(A)
    table.forget_reports(A)
    assert states(table) == [State.READY]


def test_replica_that_stops_reporting_on_purpose_goes_by_the_ledger() -> None:
    table, _ = table_of(A)
    table.observe(A, report(output=1000))
    reserve(table)
    table.forget_reports(A)
    assert owed(table) == 30


def test_replica_silent_for_30_s_is_dead() -> None:
    table, _ = table_of(A)
    table.observe(A, report())
    lost: list[RouterError] = []
    reserve(table).on_lost = lost.append
    for _ in range(30):
        table.sweep(1.0)
    assert not lost
    table.sweep(1.0)
    assert states(table) == [State.DOWN]
    assert [str(error) for error in lost] == ["replica a has been silent for 30 s"]


def test_bytes_are_a_sign_of_life() -> None:
    table, _ = table_of(A)
    table.observe(A, report())
    reservation = reserve(table)
    for _ in range(60):
        reservation.receive(0)
        table.sweep(1.0)
    assert State.DOWN not in states(table)


def test_replica_that_never_reported_is_never_dead() -> None:
    table, _ = table_of(A)
    for _ in range(100):
        table.sweep(1.0)
    assert states(table) == [State.READY]


def test_drain_rate_without_reports_is_measured() -> None:
    table, _ = table_of(A)
    for _ in range(30):
        with reserve(table, prompt=100, output=100):
            pass
        table.sweep(1.0)
    [candidate] = table.candidates()
    assert 190 < candidate.tokens_per_second <= 200


anyone = st.sampled_from([A, B, A_AGAIN])


class Books(RuleBasedStateMachine):
    """Any order of events; the sums are compared with a plain list of what is open."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.clock = table_of(A, B)
        self.here = {A, B}
        self.epochs = {A: 0, B: 0, A_AGAIN: 0}
        self.reported: set[Replica] = set()
        self.open: list[Reservation] = []
        self.charged: list[Reservation] = []

    def drop(self, replica: Replica) -> None:
        self.charged = [it for it in self.charged if it.replica != replica]

    @precondition(lambda self: self.here)
    @rule(prompt=st.integers(0, 50), output=st.integers(1, 50), pick=st.randoms())
    def reserve(self, prompt: int, output: int, pick: random.Random) -> None:
        charge = Charge(prompt_tokens=prompt, output_tokens=output, max_output_tokens=60)
        if self.table.candidates():
            reservation = self.table.reserve(charge, pick.choice)
            self.open.append(reservation)
            self.charged.append(reservation)

    @rule(data=st.data(), replica=anyone, restarts=st.booleans())
    def report(self, data: st.DataObject, replica: Replica, restarts: bool) -> None:
        ids = [reservation.id for reservation in self.open] + ["unknown"]
        accepted, finished = (
            tuple(data.draw(st.lists(st.sampled_from(ids), max_size=4))) for _ in range(2)
        )
        if replica in self.here:
            if restarts and replica in self.reported:
                self.epochs[replica] += 1
                self.drop(replica)
            self.reported.add(replica)
        epoch = str(self.epochs[replica])
        self.table.observe(replica, report(epoch=epoch, accepted=accepted, finished=finished))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), tokens=st.integers(0, 9))
    def stream(self, data: st.DataObject, tokens: int) -> None:
        data.draw(st.sampled_from(self.open)).receive(tokens)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        reservation = data.draw(st.sampled_from(self.open))
        self.open.remove(reservation)
        self.charged = [it for it in self.charged if it is not reservation]
        with reservation:
            pass
        reservation.release()

    @rule(here=st.lists(anyone, unique_by=lambda replica: replica.url))
    def discover(self, here: list[Replica]) -> None:
        for replica in self.here - set(here):
            self.drop(replica)
            self.reported.discard(replica)
        self.here = set(here)
        self.table.replace(here)

    @rule(replica=anyone)
    def lose_reports(self, replica: Replica) -> None:
        self.table.forget_reports(replica)
        self.reported.discard(replica)

    @rule(replica=anyone)
    def lose_connection(self, replica: Replica) -> None:
        self.table.mark_unreachable(replica)

    @rule(seconds=st.sampled_from([0.5, 3.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.table.sweep(seconds)

    @invariant()
    def sums_are_right(self) -> None:
        for row in self.table.loads():
            mine = [it for it in self.charged if it.replica.url == row.url]
            unlisted = [it for it in mine if not it.acknowledged]
            assert row.in_flight == len(mine)
            assert row.reservations == len(unlisted)
            assert row.reserved_tokens == sum(it.tokens for it in unlisted)
            assert row.owed_tokens >= 0
            if row.epoch is None:
                assert row.owed_tokens == sum(it.tokens for it in mine)

    def teardown(self) -> None:
        for reservation in self.open:
            reservation.release()
        self.charged = []
        self.sums_are_right()


TestBooks = Books.TestCase
TestBooks.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
