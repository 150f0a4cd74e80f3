from __future__ import annotations

import pytest

from serving_contract.deployment import Policy
from serving_router.admission import Admission, with_room
from serving_router.affinity import Sessions
from serving_router.errors import NoReplicaReady, QueueFull
from serving_router.ledger import FREE, Charge
from serving_router.load_table import LoadTable
from serving_router.replica import Candidate, Replica

LIMIT = 1000
HUGE = Charge(prompt_tokens=50 * LIMIT)
SMALL = Charge(prompt_tokens=1)


def candidate(
    *, pending: int, waiting: int | None = 1, speed: float = 100.0, url: str = "a"
) -> Candidate:
    return Candidate(url=url, pending_tokens=pending, waiting=waiting, tokens_per_second=speed)


def admission(*urls: str, sessions: Sessions | None = None) -> Admission:
    table = LoadTable()
    table.replace(Replica(url=url) for url in urls)
    return Admission(
        table, chosen_by=Policy.LEAST_PENDING_TOKENS, max_pending_tokens=LIMIT, sessions=sessions
    )


@pytest.mark.parametrize(
    "replica",
    [
        pytest.param(candidate(pending=LIMIT), id="at the limit"),
        pytest.param(candidate(pending=LIMIT + 1, waiting=0), id="above it and nothing waits"),
        pytest.param(candidate(pending=LIMIT, waiting=None), id="without reports, at the limit"),
    ],
)
def test_replica_with_room_takes_a_request(replica: Candidate) -> None:
    assert with_room([candidate(pending=9 * LIMIT, url="full"), replica], LIMIT) == [replica]


@pytest.mark.parametrize(
    ("replicas", "seconds"),
    [
        pytest.param([candidate(pending=LIMIT + 500)], 5, id="at its speed"),
        pytest.param(
            [candidate(pending=LIMIT + 500), candidate(pending=LIMIT + 250)], 3, id="the first one"
        ),
        pytest.param([candidate(pending=10**9)], 120, id="never above what clients accept"),
        pytest.param([candidate(pending=LIMIT + 1)], 1, id="never below a second"),
        pytest.param([candidate(pending=LIMIT + 1, waiting=None, speed=0.0)], 10, id="unknown"),
    ],
)
def test_full_fleet_says_when_to_come_again(replicas: list[Candidate], seconds: int) -> None:
    with pytest.raises(QueueFull, match=f"more than 1000 tokens; try again in {seconds} s") as full:
        with_room(replicas, LIMIT)
    assert full.value.retry_after_s == seconds


def test_idle_replica_takes_any_prompt() -> None:
    assert admission("a").reserve(HUGE).tokens == 50 * LIMIT


def test_request_that_costs_nothing_is_let_in_when_all_are_full() -> None:
    door = admission("a")
    door.reserve(HUGE)
    with pytest.raises(QueueFull):
        door.reserve(SMALL)
    assert door.reserve(FREE).replica.url == "a"


def test_refused_request_is_not_charged() -> None:
    door = admission("a")
    with door.reserve(HUGE), pytest.raises(QueueFull):
        door.reserve(HUGE)
    assert door.reserve(SMALL).replica.url == "a"


def test_no_replica_is_said_so() -> None:
    with pytest.raises(NoReplicaReady):
        admission().reserve(SMALL)


def test_replica_that_failed_the_request_is_avoided() -> None:
    door = admission("a", "b")
    assert {door.reserve(SMALL, avoid={"a"}).replica.url for _ in range(3)} == {"b"}
    with pytest.raises(NoReplicaReady):
        door.reserve(SMALL, avoid={"a", "b"})


def test_session_stays_until_its_replica_is_full() -> None:
    door = admission("a", "b", sessions=Sessions(ttl_s=600))
    home = door.reserve(SMALL, session="s").replica.url
    assert {door.reserve(SMALL, session="s").replica.url for _ in range(5)} == {home}
    door.reserve(HUGE, session="s")
    assert door.reserve(SMALL, session="s").replica.url != home
