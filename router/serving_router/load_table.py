"""What every replica owes, as one value that is read and reserved in one step.

Nothing here awaits: in one event loop each method is atomic, so two requests can never choose by
the same numbers.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from serving_contract.load import LoadReport
from serving_router.account import Account
from serving_router.ledger import Charge, Reservation
from serving_router.replica import Candidate, Replica, State

Choose = Callable[[Sequence[Candidate]], Candidate]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoad:
    """One row of `/v1/load`.

    Attributes:
        pending_tokens: the report's own, without `reserved_tokens`.
        owed_tokens: what choices go by.
    """

    name: str
    owed_tokens: int
    url: str
    pod: str | None
    state: State
    epoch: str | None
    seq: int | None
    report_age_seconds: float | None
    pending_tokens: int
    reserved_tokens: int
    reservations: int
    in_flight: int


class LoadTable:
    """The accounts of all replicas that discovery names."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._turns = itertools.count(1)
        self._id_prefix = secrets.token_hex(8)

    def replace(self, replicas: Iterable[Replica]) -> None:
        """Take the whole set; charges on replicas that are gone are gone with them."""
        self._accounts = {replica.url: self._account_of(replica) for replica in replicas}

    def _account_of(self, replica: Replica) -> Account:
        account = self._account(replica) or Account(replica)
        account.renew(replica)
        return account

    def _account(self, replica: Replica) -> Account | None:
        """Return its account; another pod at the same address does not inherit it."""
        account = self._accounts.get(replica.url)
        is_same = account is not None and account.replica.identity == replica.identity
        return account if is_same else None

    def reserve(self, charge: Charge, choose: Choose) -> Reservation:
        """Choose among the routable replicas and charge the chosen one, in one step.

        Raises:
            RouterError: whatever `choose` raises; nothing is charged then.
        """
        chosen = self._accounts[choose(self.candidates()).url]
        turn = next(self._turns)
        chosen.last_chosen = turn
        return chosen.ledger.reserve(f"{self._id_prefix}-{turn}", charge)

    def candidates(self) -> list[Candidate]:
        """Return the routable replicas: the ready ones, else all that may still serve.

        A stale one stays routable on what is left of its number.
        """
        now = self._clock()
        routable = self._in_states(now, State.READY, State.STALE) or [
            account for account in self._accounts.values() if account.may_serve(now)
        ]
        return [account.candidate(now) for account in routable]

    @property
    def has_ready_replica(self) -> bool:
        """Whether at least one replica is ready."""
        return bool(self._in_states(self._clock(), State.READY, State.STALE))

    def _in_states(self, now: float, *states: State) -> list[Account]:
        return [account for account in self._accounts.values() if account.state(now) in states]

    def observe(self, replica: Replica, report: LoadReport) -> None:
        """Take in a replica's report; of a replica that is gone it is ignored."""
        if account := self._account(replica):
            account.observe(report, self._clock())

    def forget_reports(self, replica: Replica) -> None:
        """Note that a replica answers but does not report."""
        if account := self._account(replica):
            account.forget_reports()

    def mark_unreachable(self, replica: Replica) -> None:
        """Choose a replica no more until it is heard of again."""
        if account := self._account(replica):
            account.is_unreachable = True

    def sweep(self, elapsed_s: float) -> None:
        """Let time pass; call it about once a second."""
        for account in self._accounts.values():
            account.sweep(elapsed_s)

    def loads(self) -> list[ReplicaLoad]:
        """Return one row for each replica, in discovery's order."""
        now = self._clock()
        return [_row(account, now) for account in self._accounts.values()]


def _row(account: Account, now: float) -> ReplicaLoad:
    report, ledger = account.report, account.ledger
    return ReplicaLoad(
        name=account.replica.name,
        owed_tokens=account.pending_tokens(now),
        url=account.replica.url,
        pod=account.replica.pod,
        state=account.state(now),
        epoch=report.epoch if report else None,
        seq=report.seq if report else None,
        report_age_seconds=round(now - account.reported_at, 3) if report else None,
        pending_tokens=report.pending_tokens if report else 0,
        reserved_tokens=ledger.reserved_tokens,
        reservations=ledger.reserved,
        in_flight=len(ledger.in_flight),
    )
