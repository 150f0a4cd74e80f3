"""Devices as the kubelet deals them out: by a device plugin that offers eight on each node."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import pytest
from tests.cluster.api import Body
from tests.cluster.device_plugin import DevicePlugin
from tests.cluster.real_cluster import RealCluster
from tests.contract.custom_resource import Kubectl
from tests.e2e.served import Served, cpu_spec, engine_resources, until
from tests.images.build import image_name

RESOURCE: Final = "huawei.com/Ascend910"
ALL: Final = 8


@pytest.fixture(scope="module")
def plugins(cluster: RealCluster) -> Iterator[dict[str, DevicePlugin]]:
    """A device plugin on every node, as long as this file's tests run."""
    with contextlib.ExitStack() as stack:
        started = {
            name: stack.enter_context(DevicePlugin(machine))
            for name, machine in cluster.machines.items()
        }
        until(lambda: offered(cluster) == [ALL] * len(started), "every node has devices")
        yield started


def offered(cluster: RealCluster) -> list[int]:
    """Return how many devices each node has to give."""
    nodes = cluster.api.list("/api/v1/nodes")
    return [int(node["status"].get("allocatable", {}).get(RESOURCE, 0)) for node in nodes]


def idle_spec(image: str, **fields: Any) -> dict[str, Any]:
    """Return the spec of an engine that only says that it is well, so that many fit."""
    command = ["python", "-c", _IDLE_ENGINE]
    container = engine_resources() | {"command": command}
    container["resources"] = {"requests": {"cpu": "10m", "memory": "32Mi"}}
    return {
        "model": {"uri": "/models/none", "servedName": "tiny"},
        "devices": {"resourceName": RESOURCE},
        "engine": {"kind": "Custom", "image": image},
        "rollout": {"drainTimeoutSeconds": 1},
        "router": {"replicas": 1},
        "template": {"spec": {"containers": [container]}},
    } | fields


_IDLE_ENGINE: Final = """
import http.server, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ.get("ASCEND_VISIBLE_DEVICES", "").encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", 8000), Health).serve_forever()
"""


def engine_status(pod: Body) -> Body:
    (found,) = pod["status"]["containerStatuses"]
    status: Body = found
    return status


def test_replica_on_devices_serves(
    served: Served, plugins: dict[str, DevicePlugin], kubectl: Kubectl
) -> None:
    """The device is asked for and dealt out; the engine, told so, computes on the processor."""
    fields = {"devices": {"resourceName": RESOURCE}, "parallelism": {"dataParallelSize": 1}}
    image = image_name("engine-cpu")
    served.create(**cpu_spec(**fields, engine={"image": image, "args": ["--device", "cpu"]}))
    served.wait_served()
    answer = served.ask()
    devices = kubectl(
        "exec",
        "-n",
        served.namespace,
        f"{served.name}-0",
        "--",
        "printenv",
        "ASCEND_VISIBLE_DEVICES",
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    assert devices.strip() == "0"


def test_more_devices_than_there_are(
    served: Served, plugins: dict[str, DevicePlugin], kubectl: Kubectl
) -> None:
    parallelism = {"dataParallelSize": 5, "tensorParallelSize": 4}
    served.create(**idle_spec(image_name("router"), parallelism=parallelism))
    served.wait_reason("Degraded", "Unschedulable")
    served.wait(lambda: served.status().get("readyReplicas") == 4, "four of five", 180)
    uids = served.uids()
    condition = served.condition("Degraded")
    assert condition["reason"] == "Unschedulable"
    assert f"Insufficient {RESOURCE}" in condition["message"]
    assert served.reason("Available") == "ReplicasReady"
    kubectl("scale", "-n", served.namespace, f"sdep/{served.name}", "--replicas=4")
    served.wait_served()
    assert served.reason("Degraded") == "AsExpected"
    assert uids.items() >= served.uids().items()
    assert {engine_status(pod)["restartCount"] for pod in served.pods()} == {0}


def test_device_that_turns_unhealthy(served: Served, plugins: dict[str, DevicePlugin]) -> None:
    parallelism = {"dataParallelSize": 2, "tensorParallelSize": 8}
    served.create(**idle_spec(image_name("router"), parallelism=parallelism))
    served.wait_served()
    uids = served.uids()
    node = served.pod(0)["spec"]["nodeName"]
    try:
        plugins[node].set_unhealthy({"3"})
        served.wait_reason("Degraded", "DeviceUnhealthy")
        message = served.condition("Degraded")["message"]
        assert "replica 0" in message
        assert f"{RESOURCE} 3" in message
    finally:
        plugins[node].set_healthy({"3"})
    served.wait_reason("Degraded", "AsExpected")
    assert served.uids() == uids


def test_restart_of_the_device_plugin_touches_no_replica(
    served: Served, plugins: dict[str, DevicePlugin], cluster: RealCluster, kubectl: Kubectl
) -> None:
    parallelism = {"dataParallelSize": 2, "tensorParallelSize": 2}
    served.create(**idle_spec(image_name("router"), parallelism=parallelism))
    served.wait_served()
    uids = served.uids()
    dealt = devices_of(served, kubectl)
    assert len(dealt) == 4
    for plugin in plugins.values():
        plugin.stop()
    until(lambda: offered(cluster) == [0, 0], "no device is left")
    for plugin in plugins.values():
        plugin.start()
    until(lambda: offered(cluster) == [ALL, ALL], "they are back")
    served.change(parallelism={"dataParallelSize": 3})
    served.wait_served()
    assert uids.items() <= served.uids().items()
    assert dealt < devices_of(served, kubectl)


def devices_of(served: Served, kubectl: Kubectl) -> set[str]:
    """Return the devices that the replicas hold, as node and number; none is held twice."""
    held = []
    for pod in served.pods():
        words = ("exec", "-n", served.namespace, pod["metadata"]["name"], "--", "printenv")
        numbers = kubectl(*words, "ASCEND_VISIBLE_DEVICES").strip().split(",")
        held += [f"{pod['spec']['nodeName']} {number}" for number in numbers]
    assert len(held) == len(set(held))
    return set(held)
