"""The router's own bookkeeping for one replica: reservations and their sums.

A reservation is charged when it is made. As *unacknowledged* it counts beside the replica's report,
until the report lists it; as *in flight* it counts in the ledger until its answer ends, which is
what remains when there are no reports. Both sums change by the same amounts in the same call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from serving_contract.estimate import raise_expectation
from serving_router.errors import RouterError
from serving_router.replica import Replica


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a request is expected to cost; output tokens of all its sequences together."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    max_output_tokens: int | None = None

    @property
    def tokens(self) -> int:
        """Return prompt and expected output together."""
        return self.prompt_tokens + self.output_tokens


FREE = Charge()
"""For requests that generate nothing."""


class Ledger:
    """Reservations on one replica; every sum is an integer, updated per event.

    Attributes:
        in_flight: reservations whose answers have not ended, by id.
        in_flight_tokens: what they still owe together.
        reserved: how many of them no report has listed.
        reserved_tokens: what those owe.
        worked_off_tokens: grows as charges fall; its slope is the drain rate.
        has_heard: a byte came since this was last reset.
    """

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.in_flight: dict[str, Reservation] = {}
        self.in_flight_tokens = 0
        self.reserved = 0
        self.reserved_tokens = 0
        self.worked_off_tokens = 0
        self.has_heard = False

    def reserve(self, reservation_id: str, charge: Charge) -> Reservation:
        """Charge a request; the caller closes the reservation."""
        reservation = Reservation(self, reservation_id, charge)
        self.in_flight[reservation_id] = reservation
        self.in_flight_tokens += charge.tokens
        self.reserved += 1
        self.reserved_tokens += charge.tokens
        return reservation

    def acknowledge(self, reservation_ids: Iterable[str]) -> None:
        """Take the replica's word for these; ids that are not ours are ignored."""
        for reservation_id in reservation_ids:
            if (reservation := self.in_flight.get(reservation_id)) and not reservation.acknowledged:
                reservation.acknowledged = True
                self.reserved -= 1
                self.reserved_tokens -= reservation.tokens

    def drop_all(self) -> list[Reservation]:
        """Take every charge off and return the reservations that held them."""
        dropped = list(self.in_flight.values())
        for reservation in dropped:
            reservation.release()
        return dropped

    def settle(self, reservation: Reservation) -> None:
        """Take one reservation off for good."""
        self.change(reservation, -reservation.tokens)
        self.reserved -= not reservation.acknowledged
        del self.in_flight[reservation.id]

    def change(self, reservation: Reservation, tokens: int) -> None:
        """Follow a change of what one reservation owes."""
        self.in_flight_tokens += tokens
        if not reservation.acknowledged:
            self.reserved_tokens += tokens
        self.worked_off_tokens += max(0, -tokens)


class Reservation:
    """The charge for one attempt to have one request answered; closed exactly once.

    Attributes:
        id: unique per attempt; load reports list it.
        tokens: what it still owes: the prompt until the first token, and expected output.
        acknowledged: the replica's own report counts it.
        on_lost: called when the replica is known to have lost the request.
    """

    def __init__(self, ledger: Ledger, reservation_id: str, charge: Charge) -> None:
        self.id = reservation_id
        self.charge = charge
        self.tokens = charge.tokens
        self.acknowledged = False
        self.on_lost: Callable[[RouterError], None] | None = None
        self._ledger = ledger
        self._generated = 0
        self._expected = charge.output_tokens
        self._released = False

    @property
    def replica(self) -> Replica:
        """Return the replica that is charged."""
        return self._ledger.replica

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def receive(self, output_tokens: int) -> None:
        """Note that bytes came, with so many new output tokens in them."""
        self._ledger.has_heard = True
        if output_tokens and not self._released:
            self._generated += output_tokens
            self._raise_expectation()
            owed = max(0, self._expected - self._generated)
            change, self.tokens = owed - self.tokens, owed
            self._ledger.change(self, change)

    def _raise_expectation(self) -> None:
        while self._generated >= self._expected:
            raised = raise_expectation(self._expected, self.charge.max_output_tokens)
            if raised <= self._expected:
                return
            self._expected = raised

    def release(self) -> None:
        """Take the charge off; again is no harm."""
        if not self._released:
            self._released = True
            self._ledger.settle(self)
            self.tokens = 0

    def lose(self, error: RouterError) -> None:
        """Tell whoever waits for the answer that it will not come."""
        if self.on_lost is not None:
            self.on_lost(error)
