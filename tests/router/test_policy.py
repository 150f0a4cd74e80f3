from __future__ import annotations

import pytest

from serving_contract.deployment import Policy
from serving_router.policy import choose, order_of
from serving_router.replica import Candidate

LEAST_TOKENS = Policy.LEAST_PENDING_TOKENS
LEAST_REQUESTS = Policy.LEAST_REQUESTS
ROUND_ROBIN = Policy.ROUND_ROBIN


@pytest.mark.parametrize(
    ("policy", "a", "b", "chosen"),
    [
        pytest.param(
            LEAST_TOKENS,
            Candidate(url="a", pending_tokens=9, requests=1),
            Candidate(url="b", pending_tokens=8, requests=7),
            "b",
            id="fewest tokens, however many requests",
        ),
        pytest.param(
            LEAST_TOKENS,
            Candidate(url="a", in_flight=1),
            Candidate(url="b", last_chosen=5),
            "b",
            id="equal tokens: fewest in flight",
        ),
        pytest.param(
            LEAST_TOKENS,
            Candidate(url="a", last_chosen=5),
            Candidate(url="b", last_chosen=4),
            "b",
            id="idle: chosen longest ago",
        ),
        pytest.param(
            LEAST_REQUESTS,
            Candidate(url="a", pending_tokens=1, requests=2),
            Candidate(url="b", pending_tokens=900, requests=1),
            "b",
            id="fewest requests, however many tokens",
        ),
        pytest.param(
            LEAST_REQUESTS,
            Candidate(url="a", last_chosen=2),
            Candidate(url="b", last_chosen=1),
            "b",
            id="equal requests: chosen longest ago",
        ),
        pytest.param(
            ROUND_ROBIN,
            Candidate(url="a", last_chosen=2),
            Candidate(url="b", last_chosen=1, pending_tokens=900),
            "b",
            id="its turn, however loaded",
        ),
    ],
)
def test_policy_chooses(policy: Policy, a: Candidate, b: Candidate, chosen: str) -> None:
    order = order_of(policy)
    assert choose(order, [a, b]).url == chosen
    assert choose(order, [b, a]).url == chosen
