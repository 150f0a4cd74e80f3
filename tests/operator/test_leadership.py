"""Several operators, one of which acts: hand-over, a leader that is stopped, a lost API server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.cluster.api import Api, Body
from tests.cluster.audit import Audit, Entry
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubelet import Kubelet
from tests.cluster.pod_watch import PodWatch
from tests.cluster.tcp_proxy import TcpProxy
from tests.operator.conftest import StartOperator
from tests.operator.operator_process import OperatorProcess, grant
from tests.operator.replica_history import Size, assert_one_pod_for_each_index, most_down
from tests.operator.sdep import Sdep
from tests.operator.test_lease import Clock, Leases, elector, end, leading

from serving_operator.errors import LeadershipLost
from serving_operator.lease import RENEW_DEADLINE_S

WRITES = {"create", "update", "patch", "delete", "deletecollection"}
RELEASE = {"metadata": {"annotations": {"release": "2"}}}


@pytest.fixture
def pair(
    start_operator: StartOperator, kubelet: Kubelet, api: Api, namespace: str
) -> tuple[OperatorProcess, OperatorProcess]:
    """The leader, and one that stands by under another account."""
    grant(api, namespace, "operator-b")
    leader = start_operator().wait_ready()
    wait_leading(api, leader)
    other = start_operator(name="operator-1", account="operator-b").wait_ready()
    return leader, other


@pytest.fixture
def pods(api: Api, namespace: str) -> Iterator[PodWatch]:
    with PodWatch(api, namespace) as watch:
        yield watch


@pytest.fixture
def proxy(control_plane: Any) -> Iterator[TcpProxy]:
    assert isinstance(control_plane, ControlPlane)
    with TcpProxy(control_plane.port) as proxy:
        yield proxy


def wait_leading(api: Api, operator: OperatorProcess) -> None:
    api.wait(lambda: operator.is_leader, f"{operator.user} leads")


def lease_of(api: Api, namespace: str) -> Body:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/ascend-serving-operator"
    spec: Body = api.get(path)["spec"]
    return spec


def writes_of(audit: Audit, operator: OperatorProcess, since: int) -> list[Entry]:
    """What it wrote with success, its Lease included."""
    entries = audit.entries(user=operator.user, since=since)
    return [e for e in entries if e.verb in WRITES and 200 <= e.code < 300]


def test_only_the_leader_writes_and_a_terminated_one_hands_over(
    pair: tuple[OperatorProcess, OperatorProcess],
    sdep: Sdep,
    api: Api,
    namespace: str,
    audit: Audit,
) -> None:
    leader, other = pair
    since = audit.mark()
    sdep.create(parallelism={"dataParallelSize": 2})
    sdep.wait_complete()
    assert writes_of(audit, leader, since)
    assert writes_of(audit, other, since) == []
    assert leader.stop() == 0
    # Given up, not run out: that takes 15 s.
    assert lease_of(api, namespace)["holderIdentity"] in {"", "operator-1"}
    wait_leading(api, other)
    sdep.change(parallelism={"dataParallelSize": 3})
    sdep.wait_complete()
    assert lease_of(api, namespace)["leaseTransitions"] == 1


# Longer than 20 s: the Lease of a process that is stopped runs out after 15 s.
def test_stopped_leader_writes_nothing_after_it_is_resumed(
    pair: tuple[OperatorProcess, OperatorProcess],
    kubelet: Kubelet,
    sdep: Sdep,
    api: Api,
    audit: Audit,
    pods: PodWatch,
) -> None:
    stopped, other = pair
    kubelet.ready_after_s = kubelet.grace_s = 0.3
    try:
        sizes = [Size.of(sdep.create(parallelism={"dataParallelSize": 6}))]
        sdep.wait_complete()
        before = sdep.uids()
        sdep.change(template=RELEASE)
        sdep.wait(lambda: sdep.uids().items() - before.items(), "the first successor")
        stopped.freeze()
        during = sdep.uids()
        wait_leading(api, other)
        sdep.wait(lambda: sdep.uids() != during, "the other goes on")
        since, resumed_at = audit.mark(), datetime.now(UTC)
        stopped.thaw()
        sdep.wait_complete()
        sdep.change(template=None)
        sdep.wait_complete()
    finally:
        kubelet.ready_after_s = kubelet.grace_s = 0.0
    late = resumed_at + timedelta(seconds=1)
    assert [e for e in writes_of(audit, stopped, since) if received_at(e) > late] == []
    assert_one_pod_for_each_index(pods)
    assert most_down(pods, sizes) <= 1
    assert_can_lead_again(stopped, other, sdep)


def received_at(entry: Entry) -> datetime:
    return datetime.fromisoformat(entry.time)


def assert_can_lead_again(stopped: OperatorProcess, other: OperatorProcess, sdep: Sdep) -> None:
    """Let the other go; one that has exited is started again, as a kubelet does."""
    if stopped.process.poll() is not None:
        stopped.start().wait_ready()
    assert not stopped.is_leader
    assert other.stop() == 0
    wait_leading(sdep.api, stopped)
    sdep.change(parallelism={"dataParallelSize": 1})
    sdep.wait_complete()


# Longer than 20 s: the deadline for a renewal is 10 s.
def test_leader_without_an_api_server_stands_down_and_leads_again(
    start_operator: StartOperator, kubelet: Kubelet, sdep: Sdep, proxy: TcpProxy, pods: PodWatch
) -> None:
    operator = start_operator(server=proxy.url).wait_ready()
    sdep.create(parallelism={"dataParallelSize": 2})
    sdep.wait_complete()
    before = sdep.uids()
    proxy.refuse()
    proxy.cut()
    sdep.change(parallelism={"dataParallelSize": 3})
    sdep.delete_pod(1)
    sdep.wait(lambda: "operator_is_leader 0.0" in operator.metrics(), "it stands down")
    assert sorted(sdep.uids()) == ["qwen-0"]
    proxy.accept()
    sdep.wait_complete()
    assert operator.is_leader
    assert operator.process.poll() is None, operator.log.read_text()
    assert sdep.uids()["qwen-0"] == before["qwen-0"]
    assert_one_pod_for_each_index(pods)


async def test_leader_that_is_cut_off_stands_down_before_it_would_have_to_exit() -> None:
    leases, clock, exits = Leases(), Clock(), list[str]()
    one = elector(clock, exits=exits)
    task = await leading(one, leases)
    leases.is_away = True
    clock.now += RENEW_DEADLINE_S - 0.1
    async with asyncio.timeout(60):
        while one.is_leader:  # noqa: ASYNC110 - the elector tells nobody
            await asyncio.sleep(0.05)
    clock.now += RENEW_DEADLINE_S
    with pytest.raises(LeadershipLost):
        one.gate()
    assert exits == []
    await end(task)
