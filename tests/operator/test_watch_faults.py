"""Watches that break: cut, frozen, silent, away, too old, and an API server that restarts."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cluster.api import Api
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.crds import apply_crds
from tests.cluster.fixtures import OwnControlPlane
from tests.cluster.kubelet import Kubelet
from tests.cluster.pod_watch import PodWatch
from tests.operator.conftest import StartOperator
from tests.operator.forgetful_proxy import ForgetfulProxy
from tests.operator.operator_process import OperatorProcess, grant
from tests.operator.replica_history import assert_one_pod_for_each_index, is_ready
from tests.operator.sdep import Sdep

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
OUTAGE_S = 30
FREEZE_S = 4
SILENCE_S = 110
"""More than the 70 s after which a stream without a word is begun anew."""


@pytest.fixture
def proxy(control_plane: Cluster) -> Iterator[ForgetfulProxy]:
    assert isinstance(control_plane, ControlPlane)
    with ForgetfulProxy(control_plane.port) as proxy:
        yield proxy


@pytest.fixture
def operator(
    start_operator: StartOperator, kubelet: Kubelet, proxy: ForgetfulProxy
) -> OperatorProcess:
    """An operator that reaches the API server through the proxy alone."""
    return start_operator(server=proxy.url).wait_ready()


@pytest.fixture
def pods(api: Api, namespace: str) -> Iterator[PodWatch]:
    with PodWatch(api, namespace) as watch:
        yield watch


def begin(sdep: Sdep, replicas: int = 3) -> dict[str, str]:
    """Create it; returns the pods' uids by name."""
    sdep.create(parallelism={"dataParallelSize": replicas})
    sdep.wait_complete()
    return sdep.uids()


def change_behind_its_back(sdep: Sdep) -> None:
    """Take a replica away and ask for another, in the knowledge that no watch tells."""
    sdep.delete_pod(1, gracePeriodSeconds=0)
    sdep.change(parallelism={"dataParallelSize": 4})


def assert_mended(
    sdep: Sdep, operator: OperatorProcess, pods: PodWatch, before: dict[str, str]
) -> None:
    """All is as the spec says, by the same process, and no replica was touched without need."""
    after = sdep.uids()
    assert sorted(after) == ["qwen-0", "qwen-1", "qwen-2", "qwen-3"]
    assert after["qwen-1"] != before["qwen-1"]
    assert {name: after[name] for name in ("qwen-0", "qwen-2")}.items() <= before.items()
    assert operator.process.poll() is None, operator.log.read_text()
    assert_one_pod_for_each_index(pods)


def test_streams_that_are_cut_again_and_again_miss_nothing(
    operator: OperatorProcess, sdep: Sdep, pods: PodWatch, proxy: ForgetfulProxy
) -> None:
    before = begin(sdep)
    moments = random.Random(2026)
    for number in range(30):
        time.sleep(moments.uniform(0.0, 0.2))
        proxy.cut()
        if number == 10:
            change_behind_its_back(sdep)
    sdep.wait_complete()
    assert_mended(sdep, operator, pods, before)


def test_streams_that_freeze_for_a_while_miss_nothing(
    operator: OperatorProcess, sdep: Sdep, pods: PodWatch, proxy: ForgetfulProxy
) -> None:
    before = begin(sdep)
    proxy.freeze()
    change_behind_its_back(sdep)
    time.sleep(FREEZE_S)
    proxy.thaw()
    sdep.wait_complete()
    assert_mended(sdep, operator, pods, before)


# Longer than 20 s: nothing tells a silent stream from one that has nothing to say but time.
def test_streams_that_fall_silent_for_ever_are_begun_anew(
    operator: OperatorProcess, sdep: Sdep, pods: PodWatch, proxy: ForgetfulProxy
) -> None:
    before = begin(sdep)
    proxy.forget()
    change_behind_its_back(sdep)
    sdep.wait(lambda: len(sdep.uids()) == 4, "four replicas", SILENCE_S)
    sdep.wait_complete()
    assert_mended(sdep, operator, pods, before)


# Longer than 20 s: so long is the outage.
def test_outage_of_half_a_minute_is_survived(
    operator: OperatorProcess, sdep: Sdep, pods: PodWatch, proxy: ForgetfulProxy
) -> None:
    before = begin(sdep)
    proxy.refuse()
    proxy.cut()
    change_behind_its_back(sdep)
    time.sleep(OUTAGE_S)
    assert "qwen-1" not in sdep.uids()
    proxy.accept()
    sdep.wait_complete()
    assert_mended(sdep, operator, pods, before)


class Own:
    """A control plane that may be broken, an operator behind a proxy, and a ServingDeployment."""

    def __init__(self, plane: ControlPlane, proxy: ForgetfulProxy, folder: Path) -> None:
        self.plane = plane
        self.proxy = proxy
        plane.make_namespace("faults")
        grant(plane.api, "faults")
        self.sdep = Sdep(plane.api, "faults")
        self.operator = OperatorProcess(
            plane, "faults", folder / "operator.log", server=proxy.url
        ).start()


StartOwn = Callable[[bool], Own]


@pytest.fixture
def own(
    own_control_plane: OwnControlPlane, controllers: None, tmp_path: Path
) -> Iterator[StartOwn]:
    with contextlib.ExitStack() as stack:

        def start(watch_cache: bool) -> Own:
            plane = own_control_plane(watch_cache=watch_cache)
            stack.enter_context(Kubelet(plane.api, nodes=["fault-node"]))
            proxy = stack.enter_context(ForgetfulProxy(plane.port))
            started = Own(plane, proxy, tmp_path)
            stack.callback(started.operator.end)
            started.operator.wait_ready()
            return started

        yield start


# Longer than 20 s: it begins with a control plane.
def test_deletions_that_were_compacted_away_are_noticed(own: StartOwn) -> None:
    there = own(False)
    sdep, plane = there.sdep, there.plane
    with PodWatch(plane.api, "faults") as pods:
        before = begin(sdep)
        old = plane.api.get(sdep.pods_path)["metadata"]["resourceVersion"]
        there.proxy.refuse()
        there.proxy.cut()
        sdep.delete_pod(1, gracePeriodSeconds=0)
        pods.events()
        plane.raise_revision()
        plane.compact()
        assert_too_old(plane.api, sdep.pods_path, old)
        there.proxy.accept()
        wait_replaced(sdep, {"qwen-1": before["qwen-1"]})
        assert sdep.uids().items() >= {n: before[n] for n in ("qwen-0", "qwen-2")}.items()
        assert there.operator.process.poll() is None, there.operator.log.read_text()
        assert_one_pod_for_each_index(pods)


def wait_replaced(sdep: Sdep, before: dict[str, str]) -> None:
    """No watch tells that these pods are gone, and nothing else calls for another look."""

    def are_replaced() -> bool:
        now = sdep.uids()
        return all(now.get(name, uid) != uid for name, uid in before.items())

    sdep.wait(are_replaced, f"successors of {sorted(before)}")
    sdep.wait(lambda: all(map(is_ready, sdep.pods())), "all ready")


def assert_too_old(api: Api, path: str, version: str) -> None:
    params = {"watch": "true", "resourceVersion": version}
    with contextlib.closing(api.connect()) as connection:
        events = api.send(connection, "GET", path, params=params)
        assert json.loads(events.readline())["object"]["code"] == 410


# Longer than 20 s: it begins with a control plane.
def test_api_server_that_is_killed_and_forgets_its_events_is_survived(own: StartOwn) -> None:
    there = own(True)
    sdep, plane = there.sdep, there.plane
    before = begin(sdep)
    there.proxy.refuse()
    plane.kill_apiserver()
    plane.raise_revision()
    plane.start_apiserver()
    with PodWatch(plane.api, "faults") as pods:
        for index in range(3):
            sdep.delete_pod(index, gracePeriodSeconds=0)
        there.proxy.accept()
        wait_replaced(sdep, before)
        assert there.operator.process.poll() is None, there.operator.log.read_text()
        assert_one_pod_for_each_index(pods)


def test_operator_whose_kind_vanishes_ends_and_waits_for_it_when_started_again(
    own: StartOwn,
) -> None:
    """The one fault that ends the process: a kubelet starts it again, and so does the test."""
    there = own(True)
    api, operator = there.plane.api, there.operator
    api.delete(f"{DEFINITIONS}/servingdeployments.ascend-serving.dev")
    assert operator.process.wait(60) == 1
    operator.start()
    apply_crds(api)
    operator.wait_ready()
    begin(there.sdep)
