from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from serving_router.discovery import LocalDiscovery
from serving_router.reports import FIRST_PAUSE_S, MAX_PAUSE_S, PROBE_INTERVAL_S, Pauses

if TYPE_CHECKING:
    from tests.router.conftest import Eventually, FakeReplica, Fleet, RouterUnderTest, StartRouter


async def pending(router: RouterUnderTest) -> object:
    return (await router.loads())["r0"]["pending_tokens"]


async def test_pushed_report_shows_in_the_load_table(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    replica.push(pending_prompt_tokens=3, pending_output_tokens=4)

    async def shows() -> bool:
        return await pending(router) == 7

    await eventually(shows)
    row = (await router.loads())["r0"]
    assert (row["url"], row["seq"], row["epoch"]) == (replica.url, 1, replica.epoch)
    assert row["report_age_seconds"] >= 0


async def reconnects(replica: FakeReplica, eventually: Eventually) -> None:
    before = replica.watchers[0]

    async def is_another() -> bool:
        return bool(replica.watchers) and replica.watchers[0] is not before

    await eventually(is_another)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"not a report\n", id="not JSON"),
        pytest.param(b"{}\n", id="fields missing"),
        pytest.param(b"\xff\n", id="not UTF-8"),
        pytest.param(b"x" * 10_000_000 + b"\n", id="too long"),
    ],
)
async def test_malformed_line_means_a_new_connection(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually, line: bytes
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    replica.load = {"pending_output_tokens": 9}
    replica.watchers[0].put_nowait(line)
    await reconnects(replica, eventually)

    async def is_mended() -> bool:
        return await pending(router) == 9

    await eventually(is_mended)


async def test_missed_line_means_a_new_connection(
    fleet: Fleet,
    start_router: StartRouter,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    [replica] = await fleet(1)
    await start_router([replica])
    replica.push(seq=2)
    await reconnects(replica, eventually)
    assert "seq 2 came, 1 had to come" in caplog.text


async def test_stream_that_ends_is_opened_again(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    [replica] = await fleet(1)
    await start_router([replica])
    replica.end_watches()
    await reconnects(replica, eventually)


async def test_replica_without_reports_is_routable_by_the_ledger(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    [replica] = await fleet(1)
    replica.reports = False
    router = await start_router([replica])
    async with router.chat() as response:
        assert response.status == 200
    row = (await router.loads())["r0"]
    assert (row["state"], row["epoch"], row["report_age_seconds"]) == ("ready", None, None)


async def test_loading_replica_is_down_until_it_reports(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    loading, ready = await fleet(2)
    loading.loading = True
    router = await start_router([loading, ready])

    async def state_of_loading(state: str) -> bool:
        return bool((await router.loads())["r0"]["state"] == state)

    await eventually(lambda: state_of_loading("down"))
    for _ in range(3):
        async with router.chat() as response:
            assert response.status == 200
    assert not loading.generated
    loading.loading = False
    await eventually(lambda: state_of_loading("ready"))


async def test_router_of_loading_replicas_is_not_ready(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    [loading] = await fleet(1)
    loading.loading = True
    router = await start_router([loading])

    async def is_not_ready() -> bool:
        async with router.session.get("/ready") as response:
            return response.status == 503

    await eventually(is_not_ready)


async def test_draining_report_takes_a_replica_out(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    draining, ready = await fleet(2)
    router = await start_router([draining, ready])
    draining.push(draining=True)

    async def is_out() -> bool:
        return bool((await router.loads())["r0"]["state"] == "draining")

    await eventually(is_out)
    for _ in range(3):
        async with router.chat() as response:
            await response.read()
    assert not draining.generated


async def test_replica_that_discovery_drops_is_watched_no_more(
    fleet: Fleet, start_router: StartRouter, eventually: Eventually
) -> None:
    first, second = await fleet(2)
    discovery = LocalDiscovery([first.replica])
    router = await start_router([first], discovery=discovery)
    discovery.set([second.replica])

    async def is_replaced() -> bool:
        rows = await router.loads()
        return set(rows) == {"r1"} and rows["r1"]["epoch"] == second.epoch

    await eventually(is_replaced)
    async with router.chat() as response:
        assert response.headers["x-ascend-serving-replica"] == "r1"


async def test_failing_stream_is_logged_once(
    fleet: Fleet,
    start_router: StartRouter,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    [replica] = await fleet(1)
    router = await start_router([replica])
    with caplog.at_level(logging.WARNING, "serving_router.reports"):
        await replica.die()

        async def is_down() -> bool:
            return bool((await router.loads())["r0"]["state"] == "down")

        await eventually(is_down)
    assert [record.name for record in caplog.records].count("serving_router.reports") == 1


def test_pauses_double_up_to_a_limit() -> None:
    pauses = Pauses(lambda low, high: high)
    seen = [pauses.next_s() for _ in range(8)]
    assert seen[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert seen[-1] == MAX_PAUSE_S
    pauses.reset()
    assert pauses.next_s() == FIRST_PAUSE_S
    pauses.wait_for_probe()
    assert pauses.next_s() == PROBE_INTERVAL_S


def test_pauses_have_jitter() -> None:
    pauses = Pauses(lambda low, high: low)
    assert pauses.next_s() == FIRST_PAUSE_S / 2
