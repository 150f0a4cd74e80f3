"""The real nodes themselves, with pods of the tests' own: what the other tests build on."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.api import Api, Body
from tests.cluster.binary import cache_folder
from tests.cluster.device_plugin import ASCEND, DevicePlugin
from tests.cluster.machine import Machine
from tests.cluster.nodes import missing_for_nodes
from tests.cluster.real_cluster import RealCluster
from tests.cluster.static_images import ECHO, image_name, static_image
from tests.contract.custom_resource import Kubectl

PODS = "/api/v1/namespaces/default/pods"
pytestmark = pytest.mark.skipif(missing_for_nodes() is not None, reason=str(missing_for_nodes()))


@pytest.fixture(scope="module")
def nodes_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    echo = static_image(ECHO, cache_folder(os.environ))
    with RealCluster.start(tmp_path_factory.mktemp("nodes") / "state", archives=[echo]) as started:
        yield started


@pytest.fixture
def nodes_api(nodes_cluster: RealCluster) -> Iterator[Api]:
    """A client; the pods of a test go with it."""
    api = nodes_cluster.api
    yield api
    api.delete(PODS, {"gracePeriodSeconds": 0})
    api.wait(lambda: not api.list(PODS), "pods are gone")


@pytest.fixture
def nodes_kubectl(nodes_cluster: RealCluster) -> Kubectl:
    return Kubectl.of(nodes_cluster)


@pytest.fixture
def n1(nodes_cluster: RealCluster) -> Machine:
    return nodes_cluster.machines["n1"]


def create(api: Api, name: str, *, node: str | None = None, devices: int = 0) -> None:
    container: Body = {"name": "echo", "image": image_name(ECHO), "imagePullPolicy": "Never"}
    if devices:
        container["resources"] = {"limits": {ASCEND: str(devices)}}
    metadata = {"name": name, "labels": {"app": "echo"}}
    selector = {"kubernetes.io/hostname": node} if node else {}
    spec = {"containers": [container], "nodeSelector": selector}
    api.create(PODS, {"metadata": metadata, "spec": spec})


def wait_running(api: Api, name: str) -> Body:
    def running() -> Body | None:
        pod = api.get(f"{PODS}/{name}")
        return pod if is_ready(pod) else None

    return api.wait(running, f"pod {name} runs")


def is_ready(pod: Body) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def node_is_ready(api: Api, name: str) -> bool:
    return is_ready(api.get(f"/api/v1/nodes/{name}"))


def get(kubectl: Kubectl, pod: str, url: str) -> str:
    return kubectl("exec", pod, "--", "/echo", "get", url).strip()


def allocatable(api: Api, node: str) -> int:
    status = api.get(f"/api/v1/nodes/{node}")["status"]
    return int(status.get("allocatable", {}).get(ASCEND, "0"))


def test_nodes_are_ready(nodes_api: Api) -> None:
    assert node_is_ready(nodes_api, "n1")
    assert node_is_ready(nodes_api, "n2")


def test_pods_on_both_nodes_reach_each_other_and_a_service_by_its_name(
    nodes_api: Api, nodes_kubectl: Kubectl
) -> None:
    service = {
        "metadata": {"name": "echo"},
        "spec": {"selector": {"app": "echo"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    nodes_api.create("/api/v1/namespaces/default/services", service)
    create(nodes_api, "one", node="n1")
    create(nodes_api, "two", node="n2")
    address = {name: wait_running(nodes_api, name)["status"]["podIP"] for name in ("one", "two")}
    assert get(nodes_kubectl, "one", f"http://{address['two']}:8080") == "two"
    assert get(nodes_kubectl, "two", f"http://{address['one']}:8080") == "one"

    def answers_by_name() -> bool:  # once both kube-proxies know of both pods
        seen = {get(nodes_kubectl, "one", "http://echo.default.svc") for _ in range(8)}
        return seen == {"one", "two"}

    nodes_api.wait(answers_by_name, "both pods answer behind the Service")
    cluster_ip = nodes_api.get("/api/v1/namespaces/default/services/echo")["spec"]["clusterIP"]
    with urllib.request.urlopen(f"http://{cluster_ip}", timeout=10) as answer:
        assert answer.read().decode().strip() in {"one", "two"}
    nodes_api.delete("/api/v1/namespaces/default/services/echo")


def test_image_that_is_missing_is_told_by_its_name(nodes_api: Api) -> None:
    container = {"name": "none", "image": "docker.io/nobody/nothing:1"}
    body = {"metadata": {"name": "missing"}, "spec": {"containers": [container]}}
    nodes_api.create(PODS, body)

    def message() -> str | None:
        status = nodes_api.get(f"{PODS}/missing")["status"]
        waiting = status.get("containerStatuses", [{}])[0].get("state", {}).get("waiting", {})
        told: str = waiting.get("message", "")
        return told if "nothing:1: not found" in told else None

    nodes_api.wait(message, "the image is told to be missing")


def test_pods_run_on_while_kubelet_and_containerd_are_restarted(
    nodes_api: Api, n1: Machine
) -> None:
    create(nodes_api, "one", node="n1")
    before = wait_running(nodes_api, "one")
    processes = n1.processes(before, "echo")
    n1.kill_kubelet()
    nodes_api.wait(lambda: not node_is_ready(nodes_api, "n1"), "n1 is not Ready")
    n1.kill_containerd()
    n1.start_containerd()
    n1.start_kubelet()
    nodes_api.wait(lambda: node_is_ready(nodes_api, "n1"), "n1 is Ready")
    after = wait_running(nodes_api, "one")
    assert after["status"]["containerStatuses"] == before["status"]["containerStatuses"]
    assert n1.processes(after, "echo") == processes != []


def test_killed_container_is_started_again_in_its_pod(nodes_api: Api, n1: Machine) -> None:
    create(nodes_api, "one", node="n1")
    n1.kill_container(wait_running(nodes_api, "one"), "echo")
    ended = nodes_api.wait(lambda: restarted(nodes_api, "one"), "echo is started again")
    assert ended["exitCode"] == 137


def test_container_without_memory_is_ended_by_the_kernel(nodes_api: Api, n1: Machine) -> None:
    create(nodes_api, "one", node="n1")
    n1.exhaust_memory(wait_running(nodes_api, "one"), "echo")
    ended = nodes_api.wait(lambda: restarted(nodes_api, "one"), "echo is started again")
    assert ended["reason"] == "OOMKilled"


def restarted(api: Api, name: str) -> Body | None:
    (status,) = api.get(f"{PODS}/{name}")["status"]["containerStatuses"]
    ended: Body | None = status["lastState"].get("terminated")
    return ended if status["ready"] else None


def test_node_that_is_killed_comes_back_with_its_pods(nodes_api: Api, n1: Machine) -> None:
    create(nodes_api, "one", node="n1")
    before = wait_running(nodes_api, "one")
    n1.kill()
    nodes_api.wait(lambda: not node_is_ready(nodes_api, "n1"), "n1 is not Ready")
    n1.start()
    nodes_api.wait(lambda: node_is_ready(nodes_api, "n1"), "n1 is Ready")

    def runs_again() -> bool:
        (status,) = nodes_api.get(f"{PODS}/one")["status"]["containerStatuses"]
        return bool(status["restartCount"] >= 1 and status["ready"])

    nodes_api.wait(runs_again, "the pod runs again")
    assert nodes_api.get(f"{PODS}/one")["metadata"]["uid"] == before["metadata"]["uid"]


def test_devices_are_allotted_in_order_until_there_are_none(nodes_api: Api, n1: Machine) -> None:
    with DevicePlugin(n1) as plugin:
        wait_offered(nodes_api, plugin)
        names = [f"pod-{number}" for number in range(5)]
        for name in names[:4]:
            create(nodes_api, name, devices=2)
            wait_running(nodes_api, name)
        create(nodes_api, names[4], devices=2)
        given = [devices_of(nodes_api, name) for name in names[:4]]
        assert given == ["0,1", "2,3", "4,5", "6,7"]
        nodes_api.wait(lambda: "Insufficient " + ASCEND in scheduled(nodes_api, names[4]), "words")


def test_device_that_falls_ill_is_shown_and_recovers(nodes_api: Api, n1: Machine) -> None:
    with DevicePlugin(n1) as plugin:
        wait_offered(nodes_api, plugin)
        create(nodes_api, "one", devices=2)
        wait_running(nodes_api, "one")
        plugin.set_unhealthy({"0"})
        nodes_api.wait(lambda: allocatable(nodes_api, "n1") == 7, "7 devices")
        nodes_api.wait(lambda: health(nodes_api, "one").get("0") == "Unhealthy", "0 is ill")
        assert health(nodes_api, "one")["1"] == "Healthy"
        plugin.set_healthy({"0"})
        nodes_api.wait(lambda: health(nodes_api, "one")["0"] == "Healthy", "0 is well")


def test_devices_come_back_after_restarts_of_plugin_and_kubelet(
    nodes_api: Api, n1: Machine
) -> None:
    with DevicePlugin(n1) as plugin:
        wait_offered(nodes_api, plugin)
        create(nodes_api, "one", devices=2)
        before = wait_running(nodes_api, "one")
        plugin.stop()
        nodes_api.wait(lambda: allocatable(nodes_api, "n1") == 0, "no devices")
        plugin.start()
        nodes_api.wait(lambda: allocatable(nodes_api, "n1") == 8, "8 devices")
        connections = plugin.connections
        n1.kill_kubelet()
        n1.start_kubelet()
        nodes_api.wait(lambda: plugin.connections > connections, "the new kubelet has the list")
        create(nodes_api, "two", devices=2)
        wait_running(nodes_api, "two")
        assert devices_of(nodes_api, "two") == "2,3"
        assert wait_running(nodes_api, "one")["status"]["podIP"] == before["status"]["podIP"]


def wait_offered(api: Api, plugin: DevicePlugin) -> None:
    """Wait until the kubelet has the list; what the node tells may be of an earlier plugin."""
    api.wait(lambda: plugin.connections > 0, "the kubelet has the list")
    api.wait(lambda: allocatable(api, "n1") == 8, "8 devices")


def devices_of(api: Api, name: str) -> str:
    address = api.get(f"{PODS}/{name}")["status"]["podIP"]
    with urllib.request.urlopen(f"http://{address}:8080", timeout=10) as answer:
        words: str = answer.read().decode()
    return words.partition(" ")[2]


def scheduled(api: Api, name: str) -> str:
    conditions = api.get(f"{PODS}/{name}")["status"].get("conditions", [])
    return " ".join(c.get("message", "") for c in conditions if c["type"] == "PodScheduled")


def health(api: Api, name: str) -> dict[str, str]:
    (status,) = api.get(f"{PODS}/{name}")["status"]["containerStatuses"]
    return {
        device["resourceID"]: device["health"]
        for resource in status.get("allocatedResourcesStatus", [])
        for device in resource["resources"]
    }


def test_nodes_never_write_to_the_images_that_they_share(nodes_cluster: RealCluster) -> None:
    """Runs after pods have started, ended and been killed."""
    assert nodes_cluster.images.exists()
    shared = [path for path in files(nodes_cluster.images) if path.stat().st_nlink > 1]
    contents = nodes_cluster.images / "io.containerd.content.v1.content" / "blobs" / "sha256"
    blobs = [path for path in shared if path.parent == contents]
    assert blobs
    assert [path.name for path in blobs] == [sha256(path) for path in blobs]
    changed = max(path.stat().st_mtime for path in shared)
    assert changed <= (nodes_cluster.images.parent / "archives.json").stat().st_mtime


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
