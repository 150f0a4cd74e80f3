"""Everything the router knows about one replica: its newest report and our ledger beside it."""

from __future__ import annotations

import math
from typing import Final

from serving_contract.load import DEAD_AFTER_S, STALE_AFTER_S, LoadReport
from serving_router.errors import ReplicaFailed
from serving_router.ledger import Ledger
from serving_router.replica import Candidate, Replica, State

STALE_HALF_LIFE_S: Final = 2.0
"""A stale number loses half of its distance from the ledger in this time."""
_RATE_WEIGHT: Final = 0.2
"""Of the newest sweep in the moving mean of the ledger's drain rate."""


class Account:
    """One replica; changed by reports, by sweeps and through its ledger."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.ledger = Ledger(replica)
        self.report: LoadReport | None = None
        self.reported_at = 0.0
        self.is_unreachable = False
        self.last_chosen = 0
        self._silent_s = 0.0
        self._rate = 0.0
        self._worked_off_before = 0

    def renew(self, replica: Replica) -> None:
        """Take in what discovery now says of the same replica."""
        self.replica = self.ledger.replica = replica

    def observe(self, report: LoadReport, now: float) -> None:
        """Take in a report; a new epoch means that all before it is gone."""
        if self.report is not None and self.report.epoch != report.epoch:
            self._restarted()
        self.report = report
        self.reported_at = now
        self.is_unreachable = False
        self.ledger.has_heard = True
        self.ledger.acknowledge(report.accepted)
        self.ledger.acknowledge(report.finished)

    def _restarted(self) -> None:
        """Only what the old process had acknowledged is surely lost with it.

        The rest may have reached the new one; its charge is gone all the same, because the new
        reports will count it.
        """
        for reservation in self.ledger.drop_all():
            if reservation.acknowledged:
                reservation.lose(ReplicaFailed(f"replica {self.replica.name} restarted"))

    def forget_reports(self) -> None:
        """Go by the ledger alone: this replica does not report."""
        self.report = None
        self.is_unreachable = False

    def sweep(self, elapsed_s: float) -> None:
        """Let time pass: measure the drain rate, and notice a replica that fell silent.

        Silence is summed up from sweeps, not read from a clock, so that a router that was itself
        suspended does not take the whole fleet for dead.
        """
        worked_off = self.ledger.worked_off_tokens - self._worked_off_before
        self._worked_off_before += worked_off
        self._rate += _RATE_WEIGHT * (worked_off / elapsed_s - self._rate)
        self._silent_s = 0.0 if self.ledger.has_heard else self._silent_s + elapsed_s
        self.ledger.has_heard = False
        if self.is_dead:
            self._lose_all()

    @property
    def is_dead(self) -> bool:
        """Whether it once reported and then neither reported nor sent a byte for 30 s."""
        return self.report is not None and self._silent_s >= DEAD_AFTER_S

    def _lose_all(self) -> None:
        error = ReplicaFailed(f"replica {self.replica.name} has been silent for {DEAD_AFTER_S:g} s")
        for reservation in list(self.ledger.in_flight.values()):
            reservation.lose(error)

    def state(self, now: float) -> State:
        """Return what `/v1/load` shows."""
        if self.is_unreachable or self.is_dead:
            return State.DOWN
        if self.replica.terminating or self.is_draining:
            return State.DRAINING
        if not self.replica.serving or not self.replica.ready:
            return State.DOWN
        return State.STALE if self.report and not self.is_fresh(now) else State.READY

    @property
    def is_draining(self) -> bool:
        """Whether the replica itself says that it takes nothing new."""
        return self.report is not None and self.report.draining

    def is_fresh(self, now: float) -> bool:
        """Return whether the newest report is recent enough to be believed."""
        return self.report is not None and now - self.reported_at <= STALE_AFTER_S

    def may_serve(self, now: float) -> bool:
        """Return whether it could answer, though discovery does not call it ready."""
        gone = self.is_unreachable or self.is_dead or self.is_draining
        return self.replica.serving and not gone

    def pending_tokens(self, now: float) -> int:
        """Return what the replica owes: the report and what it cannot know of yet.

        Without a report it is our ledger; a stale report decays to the ledger.
        """
        own = self.ledger.in_flight_tokens
        if self.report is None:
            return own
        reported = self.report.pending_tokens + self.ledger.reserved_tokens
        stale_s = max(0.0, now - self.reported_at - STALE_AFTER_S)
        trust = math.exp2(-stale_s / STALE_HALF_LIFE_S)
        return own + round((reported - own) * trust)

    def candidate(self, now: float) -> Candidate:
        """Return the numbers that a choice may depend on."""
        in_flight = len(self.ledger.in_flight)
        report = self.report if self.is_fresh(now) else None
        return Candidate(
            url=self.replica.url,
            pending_tokens=self.pending_tokens(now),
            requests=_sequences(report) + self.ledger.reserved if report else in_flight,
            in_flight=in_flight,
            waiting=report.waiting if report else None,
            tokens_per_second=report.tokens_per_second if report else self._rate,
            last_chosen=self.last_chosen,
        )


def _sequences(report: LoadReport) -> int:
    return report.running + report.waiting
