"""Which replica gets a request: pure orders over candidates, the least one is chosen.

Ties fall to the replica with the fewest of our own requests and then to the one chosen longest ago,
so that an idle fleet is spread evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import assert_never

from serving_contract.deployment import Policy
from serving_router.replica import Candidate

Order = Callable[[Candidate], tuple[int, ...]]


def order_of(policy: Policy) -> Order:
    """Return the order that a policy chooses by."""
    match policy:
        case Policy.LEAST_PENDING_TOKENS:
            return least_pending_tokens
        case Policy.LEAST_REQUESTS:
            return least_requests
        case Policy.ROUND_ROBIN:
            return round_robin
        case _:
            assert_never(policy)


def least_pending_tokens(candidate: Candidate) -> tuple[int, ...]:
    """Order by the work still owed."""
    return candidate.pending_tokens, candidate.in_flight, candidate.last_chosen


def least_requests(candidate: Candidate) -> tuple[int, ...]:
    """Order by the requests there are."""
    return candidate.requests, candidate.in_flight, candidate.last_chosen


def round_robin(candidate: Candidate) -> tuple[int, ...]:
    """Order by how long ago it was chosen, which stays fair when the set of replicas changes."""
    return (candidate.last_chosen,)


def choose(order: Order, candidates: Iterable[Candidate]) -> Candidate:
    """Return the least candidate; there must be one."""
    return min(candidates, key=order)
