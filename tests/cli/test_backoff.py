from __future__ import annotations

from serving_cli.backoff import Backoff


def test_waits_double_up_to_a_minute() -> None:
    backoff = Backoff()
    waits = [backoff.next_delay_s(was_ready_for_s=0) for _ in range(9)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_long_service_is_forgiven() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.next_delay_s(was_ready_for_s=0)
    assert backoff.next_delay_s(was_ready_for_s=61) == 1
