"""What is killed takes its open answers with it, and each of those says so: typed errors only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import pytest
from tests.cluster.api import Body
from tests.cluster.real_cluster import RealCluster
from tests.e2e.figures import Figures
from tests.e2e.installation import Installation
from tests.e2e.served import Served, cpu_spec, spread_template, until
from tests.e2e.steady_load import SteadyLoad

STREAMS: Final = 4


@pytest.fixture(scope="module")
def shared(installation: Installation, module_namespace: str) -> Served:
    """Two replicas on two nodes; both routers on the node that stays."""
    served = Served(installation.cluster.api, module_namespace, "mortal")
    on_n1 = {"spec": {"nodeSelector": {"kubernetes.io/hostname": "n1"}}}
    template = spread_template(served.name)
    served.create(**cpu_spec(template=template, router={"template": on_n1}))
    return served


@pytest.fixture
def whole(shared: Served) -> Served:
    shared.wait_served()
    return shared


def engine(pod: Body) -> Body:
    """Return the status of a pod's engine container."""
    (found,) = pod["status"]["containerStatuses"]
    status: Body = found
    return status


def restarted(served: Served, before: Body) -> Callable[[], bool]:
    """Return the question whether a pod's engine was started anew since, and is ready."""

    def is_back() -> bool:
        now = engine(served.pod(1))
        return bool(now["restartCount"] > engine(before)["restartCount"] and now["ready"])

    return is_back


def recovery(
    served: Served, victim: str, kill: Callable[[], None], is_back: Callable[[], bool], what: str
) -> tuple[SteadyLoad, float]:
    """Kill something while a replica answers, and return how long it took to be as before."""
    with SteadyLoad(served.url, streams=STREAMS, tokens=400) as load:
        until(lambda: served.in_flight(victim) >= 2, f"{victim} answers two at a time")
        began = time.monotonic()
        kill()
        until(is_back, f"{what}: back", 300)
        took_s = time.monotonic() - began
    return load, took_s


def assert_told(load: SteadyLoad, what: str, took_s: float, figures: Figures) -> None:
    figures.note(what, f"ready again after {took_s:.1f} s; {load.outcome}")
    assert load.outcome.untyped == []
    # Those that were open on it, and no others.
    assert len(load.outcome.failures) <= STREAMS


def test_sigkill_of_an_engine(whole: Served, cluster: RealCluster, figures: Figures) -> None:
    before = whole.pod(1)

    def kill() -> None:
        cluster.machines[before["spec"]["nodeName"]].kill_container(before, "engine")

    load, took_s = recovery(
        whole, "mortal-1", kill, restarted(whole, before), "SIGKILL of an engine"
    )
    assert_told(load, "SIGKILL of a replica", took_s, figures)
    assert whole.pod(1)["metadata"]["uid"] == before["metadata"]["uid"]


def test_replica_that_runs_out_of_memory(
    whole: Served, cluster: RealCluster, figures: Figures
) -> None:
    """The kernel's own OOM killer, by a limit that the running engine then reaches."""
    before = whole.pod(1)
    machine = cluster.machines[before["spec"]["nodeName"]]

    def kill() -> None:
        machine.exhaust_memory(before, "engine")
        whole.wait_reason("Degraded", "OutOfMemory")

    load, took_s = recovery(whole, "mortal-1", kill, restarted(whole, before), "OOM of a replica")
    assert_told(load, "replica out of memory", took_s, figures)
    whole.wait_reason("Degraded", "AsExpected")


def test_node_that_is_lost(whole: Served, cluster: RealCluster, figures: Figures) -> None:
    (lost,) = (pod for pod in whole.pods() if pod["spec"]["nodeName"] == "n2")
    (kept,) = (pod for pod in whole.pods() if pod["spec"]["nodeName"] == "n1")

    def is_back() -> bool:
        return whole.status().get("readyReplicas") == 2

    def kill() -> None:
        cluster.machines["n2"].kill()
        whole.wait(lambda: whole.reason("Degraded") == "NodeLost", "NodeLost", 180)
        cluster.machines["n2"].start()

    load, took_s = recovery(whole, lost["metadata"]["name"], kill, is_back, "loss of a node")
    assert_told(load, "node lost for as long as its eviction takes, then back", took_s, figures)
    assert whole.uids()[kept["metadata"]["name"]] == kept["metadata"]["uid"]
    assert whole.uids()[lost["metadata"]["name"]] != lost["metadata"]["uid"]
