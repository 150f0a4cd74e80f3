"""The test cluster itself: what other tests build on is tried here once."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.api import Api, Body
from tests.cluster.audit import Audit
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ApiRefused
from tests.cluster.fixtures import OwnControlPlane
from tests.cluster.kubelet import Kubelet
from tests.cluster.pod_status import Exit
from tests.cluster.pod_watch import PodWatch
from tests.cluster.tcp_proxy import TcpProxy
from tests.cluster.tokens import ADMIN

ROOT = Path(__file__).parents[2]
DEVICE = "example.com/device"  # no node but the tests' own has it
START_AND_WAIT = """
import sys, time
from pathlib import Path
from tests.cluster.control_plane import ControlPlane
started = ControlPlane.start(Path(sys.argv[1]))
print(*started.pids, flush=True)
time.sleep(600)
"""


@pytest.fixture
def kubelet(api: Api, controllers: None) -> Iterator[Kubelet]:
    nodes = ["cluster-test-0", "cluster-test-1"]
    with Kubelet(api, nodes=nodes, resources={DEVICE: "8"}) as kubelet:
        yield kubelet


def pod(name: str, devices: int = 1, **spec: object) -> Body:
    wanted = {DEVICE: str(devices)}
    container = {"name": "engine", "image": "none", "resources": {"limits": wanted}}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


def pods_of(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def condition(there: Body, kind: str) -> str | None:
    conditions = there["status"].get("conditions", [])
    return next((c["status"] for c in conditions if c["type"] == kind), None)


def wait_ready(api: Api, path: str, status: str = "True") -> Body:
    api.wait(lambda: condition(api.get(path), "Ready") == status, f"{path} has Ready={status}")
    return api.get(path)


def test_scheduled_pod_becomes_ready_and_goes_when_deleted(
    api: Api, namespace: str, kubelet: Kubelet
) -> None:
    path = f"{pods_of(namespace)}/p"
    api.create(pods_of(namespace), pod("p"))
    there = wait_ready(api, path)
    assert there["spec"]["nodeName"].startswith("cluster-test-")
    assert there["status"]["containerStatuses"][0]["started"]
    api.delete(path)
    api.wait(lambda: not api.exists(path), "pod p is gone")


def test_pod_that_finds_no_devices_is_unschedulable(
    api: Api, namespace: str, kubelet: Kubelet
) -> None:
    path = f"{pods_of(namespace)}/p"
    api.create(pods_of(namespace), pod("p", devices=9))
    api.wait(lambda: condition(api.get(path), "PodScheduled") == "False", "p is unschedulable")
    assert f"Insufficient {DEVICE}" in str(api.get(path)["status"]["conditions"])


def test_kubelet_does_as_it_is_told(api: Api, namespace: str, kubelet: Kubelet) -> None:
    kubelet.hold(lambda pod: bool(pod["metadata"]["name"] == "held"))
    for name in ("held", "crashing", "failing"):
        api.create(pods_of(namespace), pod(name))
    for name in ("crashing", "failing"):
        wait_ready(api, f"{pods_of(namespace)}/{name}")
    wait_ready(api, f"{pods_of(namespace)}/held", "False")
    out_of_memory = Exit(code=137, reason="OOMKilled")
    kubelet.waiting(namespace, "crashing", "CrashLoopBackOff", "back-off", out_of_memory)
    kubelet.fail(namespace, "failing", "UnexpectedAdmissionError", "no devices")
    crashing = wait_ready(api, f"{pods_of(namespace)}/crashing", "False")
    last = crashing["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (137, "OOMKilled")
    failing = wait_ready(api, f"{pods_of(namespace)}/failing", "False")
    assert (failing["status"]["phase"], failing["status"]["message"]) == ("Failed", "no devices")
    kubelet.release()
    wait_ready(api, f"{pods_of(namespace)}/held")
    wait_ready(api, f"{pods_of(namespace)}/crashing")


def test_pod_of_a_lost_node_stays_terminating_until_the_node_is_found(
    api: Api, namespace: str, kubelet: Kubelet
) -> None:
    path = f"{pods_of(namespace)}/p"
    api.create(pods_of(namespace), pod("p"))
    node = wait_ready(api, path)["spec"]["nodeName"]
    kubelet.lose(node)
    api.delete(path)
    api.wait(lambda: node_is(api, node, "Unknown"), "the node is found lost")
    assert "deletionTimestamp" in api.get(path)["metadata"]
    kubelet.find(node)
    api.wait(lambda: not api.exists(path), "pod p is gone")
    api.wait(lambda: node_is(api, node, "True"), "the node is Ready again")


def node_is(api: Api, node: str, status: str) -> bool:
    return condition(api.get(f"/api/v1/nodes/{node}"), "Ready") == status


def test_deployment_is_available(api: Api, namespace: str, kubelet: Kubelet) -> None:
    labels = {"app": "router"}
    template = {"metadata": {"labels": labels}, "spec": pod("router")["spec"]}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    api.create(path, {"metadata": {"name": "router"}, "spec": spec})
    api.wait(
        lambda: api.get(f"{path}/router")["status"].get("availableReplicas") == 2,
        "both pods of the Deployment are available",
    )


def test_pod_watch_has_every_event_in_order(api: Api, namespace: str, kubelet: Kubelet) -> None:
    path = f"{pods_of(namespace)}/p"
    with PodWatch(api, namespace) as watch:
        for _ in range(2):
            api.create(pods_of(namespace), pod("p"))
            wait_ready(api, path)
            api.delete(path)
            api.wait(lambda: not api.exists(path), "pod p is gone")
        kinds = [event.kind for event in watch.events()]
        assert max(len(state) for state in watch.states()) == 1
        assert watch.gaps == 0
    changes = [kind for kind in kinds if kind != "MODIFIED"]
    assert changes == ["ADDED", "DELETED", "ADDED", "DELETED"]


def test_audit_log_has_the_requests_of_a_service_account(
    control_plane: Cluster, audit: Audit, namespace: str, api: Api
) -> None:
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    api.create(accounts, {"metadata": {"name": "someone"}})
    someone = control_plane.api_for(control_plane.service_account_token(namespace, "someone"))
    with pytest.raises(ApiRefused, match="403 Forbidden"):
        someone.list(pods_of(namespace))
    before = audit.mark()
    with pytest.raises(ApiRefused):
        someone.get(f"{pods_of(namespace)}/p")
    user = f"system:serviceaccount:{namespace}:someone"
    seen = audit.entries(user=user, since=before)
    assert [(entry.verb, entry.resource, entry.name, entry.code) for entry in seen] == [
        ("get", "pods", "p", 403)
    ]
    assert len(audit.entries(user=user)) == 2


def test_restricted_namespace_refuses_a_bare_pod(api: Api, namespace: str) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": label}})
    with pytest.raises(ApiRefused, match="violates PodSecurity"):
        api.create(pods_of(namespace), pod("p"))


def test_apply_yaml_finds_the_path_of_each_document(api: Api, namespace: str) -> None:
    text = """
apiVersion: v1
kind: ConfigMap
metadata: {name: one}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: two}
rules: []
"""
    api.apply_yaml(text, namespace)
    assert api.exists(f"/api/v1/namespaces/{namespace}/configmaps/one")
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles"
    assert api.exists(f"{roles}/two")


@pytest.fixture(scope="module")
def own(module_control_plane: OwnControlPlane) -> ControlPlane:
    return module_control_plane(watch_cache=False)


def test_watch_from_before_a_compaction_is_too_old(own: ControlPlane) -> None:
    old = own.api.get("/api/v1/namespaces")["metadata"]["resourceVersion"]
    own.raise_revision()
    own.compact()
    params = {"watch": "true", "resourceVersion": old}
    with contextlib.closing(own.api.connect()) as connection:
        events = own.api.send(connection, "GET", "/api/v1/namespaces", params=params)
        assert json.loads(events.readline())["object"]["code"] == 410


def test_killed_api_server_comes_back_and_a_watch_goes_on(own: ControlPlane) -> None:
    own.make_namespace("watched")
    with PodWatch(own.api, "watched") as watch:
        own.kill_apiserver()
        with pytest.raises(ConnectionRefusedError):
            own.api.get("/version")
        own.start_apiserver()
        own.api.create(pods_of("watched"), pod("p"))
        assert [event.name for event in watch.events()][-1] == "p"


def test_frozen_api_server_says_nothing_until_it_thaws(own: ControlPlane) -> None:
    own.freeze_apiserver()
    with pytest.raises(TimeoutError):
        own.api.connect(timeout_s=0.2)
    own.thaw_apiserver()
    assert own.api.text("/readyz") == "ok"


@pytest.fixture
def proxy(own: ControlPlane) -> Iterator[TcpProxy]:
    with TcpProxy(own.port) as proxy:
        yield proxy


@pytest.fixture
def behind(own: ControlPlane, proxy: TcpProxy) -> Api:
    return own.api_for(own.tokens.of(ADMIN), server=proxy.url)


def test_proxy_cuts_connections_and_takes_new_ones(behind: Api, proxy: TcpProxy) -> None:
    with contextlib.closing(behind.connect()) as connection:
        proxy.cut()
        with pytest.raises(OSError):  # noqa: PT011 - closed or reset, as it comes
            behind.send(connection, "GET", "/version")
    assert behind.text("/readyz") == "ok"


def test_frozen_proxy_moves_nothing_until_it_thaws(behind: Api, proxy: TcpProxy) -> None:
    proxy.freeze()
    with pytest.raises(TimeoutError):
        behind.connect(timeout_s=0.2)
    proxy.thaw()
    assert behind.text("/readyz") == "ok"


def test_proxy_refuses_until_it_accepts_again(behind: Api, proxy: TcpProxy) -> None:
    with contextlib.closing(behind.connect()) as connection:
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            behind.connect()
        assert behind.send(connection, "GET", "/readyz").read() == b"ok"
    proxy.accept()
    assert behind.text("/readyz") == "ok"


@pytest.mark.usefixtures("own_control_plane")  # the binary is needed, and may be used
def test_killed_harness_leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", START_AND_WAIT, str(tmp_path / "state")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as harness:
        assert harness.stdout is not None
        pids = [int(pid) for pid in harness.stdout.readline().split()]
        assert pids
        harness.send_signal(signal.SIGKILL)
    wait_until_gone(pids)


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
