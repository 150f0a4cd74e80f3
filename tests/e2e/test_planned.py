"""What is planned costs nobody an answer: 0 failed requests, 0 broken streams.

A steady load runs through the client Service during each of these; the official client with its
default retries decides what has failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import pytest
from tests.charts.helm import SYSTEM
from tests.cluster.errors import ApiRefused
from tests.cluster.real_cluster import RealCluster
from tests.contract.custom_resource import Kubectl
from tests.e2e.figures import Figures
from tests.e2e.installation import Installation
from tests.e2e.served import Served, cpu_spec, spread_template, until
from tests.e2e.steady_load import SteadyLoad

OUTAGE_S: Final = 60.0


@pytest.fixture(scope="module")
def shared(installation: Installation, module_namespace: str) -> Served:
    """Two replicas and two routers that all tests of this file share."""
    served = Served(installation.cluster.api, module_namespace, "steady")
    served.create(**cpu_spec(template=spread_template(served.name)))
    return served


@pytest.fixture
def whole(shared: Served) -> Served:
    """The shared ServingDeployment with a replica on each of the two nodes."""
    shared.change(parallelism={"dataParallelSize": 2})
    shared.wait_served()
    if len(shared.nodes()) < 2:
        left = shared.uids()[f"{shared.name}-1"]
        shared.delete_pod(1)
        shared.wait_gone(left)
        shared.wait_served()
    assert shared.nodes() == {"n1", "n2"}
    return shared


def during(served: Served, what: str, figures: Figures, event: Callable[[], None]) -> None:
    """Let something happen under load, and check that no answer was lost."""
    with SteadyLoad(served.url) as steady:
        began = time.monotonic()
        event()
        took_s = time.monotonic() - began
        # What the event sets off later is met by streams that began after it.
        steady.wait_for_answers(steady.outcome.answered + 8)
    figures.note(f"{what}, under load", f"{took_s:.1f} s; {steady.outcome}")
    assert steady.outcome.failures == []


def test_rolling_update_of_the_engine_image(
    whole: Served, next_images: dict[str, str], figures: Figures
) -> None:
    before = whole.uids()

    def update() -> None:
        whole.change(engine={"image": next_images["engine-cpu"]})
        whole.wait(lambda: whole.reason("Progressing") == "RollingOut", "the rollout begins")
        whole.wait_served()

    during(whole, "rollout of the engine image, 2 replicas", figures, update)
    images = {one["image"] for one in whole.status()["replicaStatuses"]}
    assert images == {next_images["engine-cpu"]}
    assert not set(before.values()) & set(whole.uids().values())


def test_rolling_update_of_the_router_image(
    whole: Served, next_images: dict[str, str], figures: Figures
) -> None:
    replicas = whole.uids()
    before = {pod["metadata"]["uid"] for pod in whole.routers()}

    def are_new() -> bool:
        uids = {pod["metadata"]["uid"] for pod in whole.routers()}
        return not uids & before and whole.are_routers_settled()

    def update() -> None:
        whole.change(router={"image": next_images["router"]})
        whole.wait(are_new, "every router is new", 180)

    during(whole, "update of the router image, 2 routers", figures, update)
    assert whole.uids() == replicas


def test_scaling_up_and_down(whole: Served, kubectl: Kubectl, figures: Figures) -> None:
    def scale(replicas: int) -> None:
        kubectl("scale", "-n", whole.namespace, f"sdep/{whole.name}", f"--replicas={replicas}")
        whole.wait(lambda: len(whole.pods()) == replicas, f"{replicas} pods", 180)
        whole.wait_served()

    def up_and_down() -> None:
        scale(3)
        scale(1)

    during(whole, "scale 2 -> 3 -> 1", figures, up_and_down)


def test_deleting_a_pod(whole: Served, kubectl: Kubectl, figures: Figures) -> None:
    before = whole.uids()

    def delete() -> None:
        kubectl("delete", "pod", "-n", whole.namespace, f"{whole.name}-1", "--wait=false")
        whole.wait_gone(before[f"{whole.name}-1"])
        whole.wait_served()

    during(whole, "kubectl delete pod", figures, delete)
    assert whole.uids()[f"{whole.name}-0"] == before[f"{whole.name}-0"]


def test_draining_a_node(whole: Served, kubectl: Kubectl, figures: Figures) -> None:
    def drain() -> None:
        kubectl("drain", "n2", "--delete-emptydir-data", "--timeout=180s")
        whole.wait_served()

    assert "n2" in whole.nodes()
    try:
        during(whole, "kubectl drain of a node", figures, drain)
        nodes = {pod["spec"]["nodeName"] for pod in (*whole.pods(), *whole.routers())}
        assert nodes == {"n1"}
    finally:
        kubectl("uncordon", "n2")


def test_second_replica_may_not_be_evicted_beside_the_first(whole: Served) -> None:
    def evict(index: int) -> None:
        name = f"{whole.name}-{index}"
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        whole.api.create(f"{whole.pods_path}/{name}/eviction", eviction)

    budgets = f"/apis/policy/v1/namespaces/{whole.namespace}/poddisruptionbudgets"
    budget = f"{budgets}/{whole.name}-replicas"
    whole.wait(
        lambda: whole.api.get(budget)["status"]["disruptionsAllowed"] == 1, "one may be evicted"
    )
    evict(0)
    with pytest.raises(ApiRefused) as refused:
        evict(1)
    assert refused.value.status == 429
    assert "disruption budget" in refused.value.message


def test_operator_being_away_for_a_minute(
    whole: Served, kubectl: Kubectl, figures: Figures
) -> None:
    before = whole.uids()
    operator = "deployment/ascend-serving-operator"

    def scale_operator(replicas: int) -> None:
        kubectl("scale", "-n", SYSTEM, operator, f"--replicas={replicas}")

    def away() -> None:
        scale_operator(0)
        kubectl("delete", "pod", "-n", whole.namespace, f"{whole.name}-1", "--wait=false")
        whole.wait_gone(before[f"{whole.name}-1"])
        time.sleep(OUTAGE_S)
        assert len(whole.pods()) == 1
        scale_operator(2)
        whole.wait_served()

    try:
        during(whole, "operator away for a minute, one replica deleted meanwhile", figures, away)
    finally:
        scale_operator(2)


def test_api_server_being_down_for_a_minute(
    whole: Served, cluster: RealCluster, figures: Figures
) -> None:
    before = whole.uids()

    def down() -> None:
        cluster.kill_apiserver()
        time.sleep(OUTAGE_S)
        cluster.start_apiserver()
        whole.change(parallelism={"dataParallelSize": 3})
        whole.wait(lambda: len(whole.pods()) == 3, "the operator acts again", 120)

    during(whole, "API server down for a minute", figures, down)
    assert before.items() <= whole.uids().items()


@pytest.mark.parametrize("part", ["kubelet", "containerd"])
def test_restarting_a_part_of_the_node(
    whole: Served, cluster: RealCluster, figures: Figures, part: str
) -> None:
    before = whole.uids()
    machine = cluster.machines["n2"]

    def restart() -> None:
        getattr(machine, f"kill_{part}")()
        time.sleep(3)
        getattr(machine, f"start_{part}")()
        wait_for_heartbeats(cluster, "n2", 3)
        whole.wait_served()

    during(whole, f"restart of {part}", figures, restart)
    assert whole.uids() == before
    restarts = [
        container["restartCount"]
        for pod in whole.pods()
        for container in pod["status"]["containerStatuses"]
    ]
    assert restarts == [0] * len(before)


def wait_for_heartbeats(cluster: RealCluster, node: str, count: int) -> None:
    """Wait until the kubelet has told so many times, from now on, that its node is well."""
    seen: set[str] = set()

    def are_enough() -> bool:
        conditions = cluster.api.get(f"/api/v1/nodes/{node}")["status"]["conditions"]
        (ready,) = (one for one in conditions if one["type"] == "Ready")
        if ready["status"] == "True":
            seen.add(ready["lastHeartbeatTime"])
        return len(seen) > count

    until(are_enough, f"{count} heartbeats of {node}")


def test_upgrading_the_chart_touches_no_replica(
    whole: Served, installation: Installation, figures: Figures
) -> None:
    before = whole.uids()

    def upgrade() -> None:
        installation.upgrade("--set", "operator.resources.requests.cpu=50m")

    during(whole, "helm upgrade", figures, upgrade)
    assert whole.uids() == before


def test_rollout_under_a_high_rate_of_short_requests(whole: Served, figures: Figures) -> None:
    def roll() -> None:
        again = {"metadata": {"annotations": {"example.com/again": "1"}}}
        whole.change(template=spread_template(whole.name) | again)
        whole.wait(lambda: whole.reason("Progressing") == "RollingOut", "the rollout begins")
        whole.wait_served()

    with SteadyLoad(whole.url, streams=32, tokens=1) as load:
        began = time.monotonic()
        answered = load.outcome.answered
        roll()
        took_s = time.monotonic() - began
        rate = (load.outcome.answered - answered) / took_s
    figures.note("rollout under short requests", f"{rate:.0f} req/s, {load.outcome}")
    assert load.outcome.failures == []


def test_routers_forget_a_vanished_pod_at_once(whole: Served, figures: Figures) -> None:
    """Measured from the change of the EndpointSlice as a watch of ours sees it."""
    router = whole.routers()[0]
    victim = f"{whole.name}-1"
    vanished = whole.watch_endpoint(victim)
    vanished.wait_begun()
    whole.delete_pod(1, gracePeriodSeconds=0)
    until(lambda: victim not in whole.known_to(router), "the router forgets it")
    forgotten_at = time.monotonic()
    figures.note(
        "router's reaction to a vanished pod",
        f"{1000 * (forgotten_at - vanished.wait()):.0f} ms after the EndpointSlice change",
    )
    whole.wait_served()
