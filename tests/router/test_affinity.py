from __future__ import annotations

from serving_router.affinity import Sessions


def test_session_keeps_its_replica() -> None:
    sessions = Sessions(ttl_s=600)
    sessions.bind("s", "http://a", now=0)
    assert sessions.replica_of("s", now=600) == "http://a"
    assert sessions.replica_of("other", now=0) is None


def test_session_is_forgotten_after_its_ttl() -> None:
    sessions = Sessions(ttl_s=600)
    sessions.bind("s", "http://a", now=0)
    assert sessions.replica_of("s", now=601) is None


def test_use_renews_a_session() -> None:
    sessions = Sessions(ttl_s=600)
    sessions.bind("s", "http://a", now=0)
    sessions.bind("s", "http://a", now=500)
    assert sessions.replica_of("s", now=1000) == "http://a"


def test_sessions_are_bounded_and_the_oldest_goes_first() -> None:
    sessions = Sessions(ttl_s=600, max_sessions=3)
    for number in range(10):
        sessions.bind(f"s{number}", "http://a", now=number)
    assert len(sessions) == 3
    assert sessions.replica_of("s9", now=9) == "http://a"
    assert sessions.replica_of("s6", now=9) is None


def test_sessions_that_are_over_leave_no_memory() -> None:
    sessions = Sessions(ttl_s=10)
    for number in range(100):
        sessions.bind(f"s{number}", "http://a", now=0)
    sessions.bind("new", "http://a", now=11)
    assert len(sessions) == 1
