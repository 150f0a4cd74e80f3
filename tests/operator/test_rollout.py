"""Rollouts, healing and what they tell, on a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.api import Api, Body
from tests.cluster.errors import ApiRefused
from tests.cluster.kubelet import Kubelet
from tests.cluster.pod_status import Exit, Waiting
from tests.cluster.pod_watch import PodWatch
from tests.operator.operator_process import OperatorProcess
from tests.operator.sdep import Sdep


def annotated(value: str) -> Body:
    return {"metadata": {"annotations": {"release": value}}}


@pytest.fixture
def pods(api: Api, namespace: str) -> Iterator[PodWatch]:
    with PodWatch(api, namespace) as watch:
        yield watch


def is_ready(pod: Body) -> bool:
    conditions = pod["status"].get("conditions", [])
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def replicas_in(state: list[Body]) -> list[Body]:
    component = "app.kubernetes.io/component"
    return [pod for pod in state if pod["metadata"]["labels"].get(component) == "replica"]


def fewest_ready(pods: PodWatch) -> int:
    """The fewest ready replicas at any instant after all were ready."""
    counts = [sum(map(is_ready, replicas_in(state))) for state in pods.states()]
    highest = max(counts)
    return min(counts[counts.index(highest) :])


def assert_never_two_for_an_index(pods: PodWatch) -> None:
    for state in pods.states():
        names = [pod["metadata"]["name"] for pod in replicas_in(state)]
        assert len(names) == len(set(names))


def test_rollout_replaces_each_replica_once_and_one_at_a_time(
    operator: OperatorProcess, sdep: Sdep, pods: PodWatch
) -> None:
    sdep.create(parallelism={"dataParallelSize": 3})
    sdep.wait_complete()
    before = sdep.uids()
    sdep.change(template=annotated("2"))
    sdep.wait_complete()
    after = sdep.uids()
    assert set(before.values()).isdisjoint(after.values())
    assert fewest_ready(pods) == 2
    assert_never_two_for_an_index(pods)
    created = {event.uid for event in pods.events() if event.kind == "ADDED"}
    assert created >= set(before.values()) | set(after.values())
    events = [e for e in sdep.events() if e.startswith("Rollout")]
    assert events == ["RolloutStarted", "RolloutComplete"]


def test_change_that_is_not_of_the_pods_replaces_none(
    operator: OperatorProcess, sdep: Sdep
) -> None:
    sdep.create(parallelism={"dataParallelSize": 2})
    sdep.wait_complete()
    before = sdep.uids()
    sdep.change(router={"replicas": 2, "policy": "LeastRequests"}, rollout={"minReadySeconds": 1})
    sdep.wait_complete()
    assert sdep.uids() == before


def test_rollout_replaces_the_replica_that_is_down_first(
    operator: OperatorProcess, sdep: Sdep, kubelet: Kubelet, namespace: str, pods: PodWatch
) -> None:
    sdep.create(parallelism={"dataParallelSize": 3})
    sdep.wait_complete()
    kubelet.set_ready(namespace, "qwen-0", False)
    sdep.wait_reason("Degraded", "ReplicaNotReady")
    sdep.change(template=annotated("2"))
    sdep.wait_complete()
    deleted = [
        event.name
        for event in pods.events()
        if event.kind == "DELETED" and event.name in {"qwen-0", "qwen-1", "qwen-2"}
    ]
    assert deleted == ["qwen-0", "qwen-2", "qwen-1"]
    assert fewest_ready(pods) == 2


def test_rollout_stops_at_its_deadline_and_a_revert_ends_it(
    operator: OperatorProcess, sdep: Sdep, kubelet: Kubelet, namespace: str
) -> None:
    sdep.create(
        parallelism={"dataParallelSize": 3},
        rollout={"progressDeadlineSeconds": 2, "drainTimeoutSeconds": 1},
    )
    sdep.wait_complete()
    before = sdep.uids()
    kubelet.hold(_has_release(namespace, "bad"))
    sdep.change(template=annotated("bad"))
    sdep.wait_reason("Progressing", "ProgressDeadlineExceeded")
    during = sdep.uids()
    assert {name for name in before if during[name] == before[name]} == {"qwen-0", "qwen-1"}
    sdep.change(template=None)
    sdep.wait_complete()
    assert sdep.uids().items() >= {n: before[n] for n in ("qwen-0", "qwen-1")}.items()
    assert "RolloutStalled" in sdep.events()


def _has_release(namespace: str, value: str) -> Any:
    def applies(pod: Body) -> bool:
        annotations = pod["metadata"].get("annotations", {})
        return bool(
            pod["metadata"]["namespace"] == namespace and annotations.get("release") == value
        )

    return applies


def test_surge_keeps_every_replica_until_its_successor_serves(
    operator: OperatorProcess, sdep: Sdep, pods: PodWatch
) -> None:
    sdep.create(
        parallelism={"dataParallelSize": 2},
        rollout={"maxSurge": 1, "maxUnavailable": 0, "drainTimeoutSeconds": 1},
    )
    sdep.wait_complete()
    sdep.change(template=annotated("2"))
    sdep.wait_complete()
    assert sorted(sdep.uids()) == ["qwen-0", "qwen-1"]
    assert fewest_ready(pods) == 2


def test_template_that_the_server_refuses_is_quoted_and_the_replicas_run_on(
    operator: OperatorProcess, sdep: Sdep
) -> None:
    sdep.create(parallelism={"dataParallelSize": 2})
    sdep.wait_complete()
    before = sdep.uids()
    sdep.change(template={"spec": {"containers": [{"name": "sidecar"}]}})
    message = sdep.wait_reason("Accepted", "TemplateInvalid")["message"]
    assert "spec.containers[1].image" in message
    sdep.change(template={"spec": {"nodeSelektor": {"a": "b"}}})
    sdep.wait(lambda: "nodeSelektor" in sdep.condition("Accepted")["message"], "the typo named")
    assert sdep.uids() == before
    sdep.change(template=None)
    sdep.wait_reason("Accepted", "Accepted")
    assert sdep.uids() == before


def test_pod_security_is_quoted_as_a_template_error(
    operator: OperatorProcess, sdep: Sdep, api: Api, namespace: str
) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": labels}})
    sdep.create(template={"spec": {"hostNetwork": True}})
    message = sdep.wait_reason("Accepted", "TemplateInvalid")["message"]
    assert "PodSecurity" in message
    assert sdep.pods() == []


def test_policy_that_forbids_the_new_pods_costs_no_replica(
    operator: OperatorProcess, sdep: Sdep, api: Api, namespace: str
) -> None:
    sdep.create(parallelism={"dataParallelSize": 2})
    sdep.wait_complete()
    before = sdep.uids()
    forbid(
        api,
        namespace,
        "!has(object.metadata.annotations) || !('release' in object.metadata.annotations)",
    )
    api.wait(lambda: _is_forbidden(api, sdep) or None, "the policy in force")
    sdep.change(template=annotated("2"))
    message = sdep.wait_reason("Accepted", "TemplateInvalid")["message"]
    assert "not in this house" in message
    assert sdep.uids() == before


def forbid(api: Api, namespace: str, expression: str) -> None:
    """Let an admission policy forbid pods of one namespace."""
    root = "/apis/admissionregistration.k8s.io/v1"
    metadata = {"name": namespace}
    pods = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["pods"],
    }
    rule = {"expression": expression, "message": "not in this house", "reason": "Forbidden"}
    spec = {"matchConstraints": {"resourceRules": [pods]}, "validations": [rule]}
    api.create(f"{root}/validatingadmissionpolicies", {"metadata": metadata, "spec": spec})
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {"policyName": namespace, "validationActions": ["Deny"], "matchResources": here}
    api.create(f"{root}/validatingadmissionpolicybindings", {"metadata": metadata, "spec": binding})


def _is_forbidden(api: Api, sdep: Sdep) -> bool:
    pod = {
        "metadata": {"name": "probe", "annotations": {"release": "x"}},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    }
    try:
        api.create(sdep.pods_path, pod, {"dryRun": "All"})
    except ApiRefused as refused:
        return refused.status == 403
    return False


def test_router_template_that_the_server_refuses_is_quoted(
    operator: OperatorProcess, sdep: Sdep
) -> None:
    sdep.create(router={"replicas": 1, "template": {"spec": {"containers": [{"name": "x"}]}}})
    sdep.wait_reason("Accepted", "TemplateInvalid")
    sdep.change(router={"template": None})
    sdep.wait_complete()


def test_quota_degrades_until_there_is_room(
    operator: OperatorProcess, sdep: Sdep, api: Api, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    api.create(path, {"metadata": {"name": "tight"}, "spec": {"hard": {"pods": "2"}}})
    sdep.wait(lambda: api.get(f"{path}/tight").get("status", {}).get("hard"), "the quota counts")
    sdep.create(parallelism={"dataParallelSize": 4})
    degraded = sdep.wait_reason("Degraded", "AdmissionFailed")
    assert "exceeded quota" in degraded["message"]
    failures = [one.get("failures") for one in sdep.status()["replicaStatuses"]]
    assert any(failures)
    api.delete(f"{path}/tight")
    sdep.wait(lambda: sdep.status()["ready"] == "4/4", "all replicas")


TROUBLES = {
    "image": ("ImagePullBackOff", "Back-off pulling image", None, "ImagePullFailed"),
    "crash": ("CrashLoopBackOff", "back-off", Exit(code=2, message="no such model"), "CrashLoop"),
    "out of memory": ("CrashLoopBackOff", "", Exit(code=137, reason="OOMKilled"), "OutOfMemory"),
}


@pytest.mark.parametrize(
    ("waiting", "message", "last_exit", "reason"), TROUBLES.values(), ids=TROUBLES.keys()
)
def test_trouble_of_a_replica_is_told_once_and_cleared(
    operator: OperatorProcess,
    sdep: Sdep,
    kubelet: Kubelet,
    namespace: str,
    waiting: str,
    message: str,
    last_exit: Exit | None,
    reason: str,
) -> None:
    sdep.create()
    sdep.wait_complete()
    kubelet.waiting(namespace, "qwen-0", waiting, message, last_exit)
    degraded = sdep.wait_reason("Degraded", reason)
    words = last_exit.message if last_exit else message
    assert words in degraded["message"]
    kubelet.set_ready(namespace, "qwen-0", True)
    sdep.wait_reason("Degraded", "AsExpected")
    assert sdep.events().count(reason) == 1


def test_new_router_in_trouble_is_told_and_leaves_the_old_ones(
    operator: OperatorProcess, sdep: Sdep, kubelet: Kubelet
) -> None:
    sdep.create()
    sdep.wait_complete()
    waits = Waiting(reason="ImagePullBackOff", message="no such image", last_exit=None)
    kubelet.order(lambda pod: pod["spec"]["containers"][0]["image"] == "router:absent", waits)
    sdep.change(router={"image": "router:absent"})
    message = sdep.wait_reason("Degraded", "ImagePullFailed")["message"]
    assert message.startswith("router qwen-router-")
    assert message.endswith("ImagePullBackOff: no such image")
    assert sdep.reason("Available") == "ReplicasReady"
    sdep.change(router={"image": None})
    sdep.wait_reason("Degraded", "AsExpected")


def test_schedulers_own_words_are_shown(operator: OperatorProcess, sdep: Sdep) -> None:
    sdep.create(
        parallelism={"dataParallelSize": 3, "tensorParallelSize": 8},
        devices={"resourceName": "huawei.com/Ascend910"},
    )
    degraded = sdep.wait_reason("Degraded", "Unschedulable")
    assert "Insufficient huawei.com/Ascend910" in degraded["message"]
    sdep.wait(lambda: sdep.status()["ready"] == "2/3", "two of three")
    sdep.wait_reason("Available", "ReplicasReady")


def test_unhealthy_device_is_shown_and_its_pod_stays(
    operator: OperatorProcess, sdep: Sdep, api: Api
) -> None:
    sdep.create()
    sdep.wait_complete()
    before = sdep.uids()
    path = f"{sdep.pods_path}/qwen-0"
    api.patch(path, {"metadata": {"annotations": {"huawei.com/pod-status": "Unhealthy"}}})
    sdep.wait_reason("Degraded", "DeviceUnhealthy")
    assert sdep.uids() == before


def test_failed_pod_is_replaced_after_a_while(
    operator: OperatorProcess, sdep: Sdep, kubelet: Kubelet, namespace: str
) -> None:
    sdep.create(parallelism={"dataParallelSize": 2})
    sdep.wait_complete()
    before = sdep.uids()
    kubelet.fail(namespace, "qwen-1", "UnexpectedAdmissionError", "no healthy devices present")
    degraded = sdep.wait_reason("Degraded", "AdmissionFailed")
    assert "no healthy devices present" in degraded["message"]
    replica = sdep.status()["replicaStatuses"][1]
    assert (replica["failures"], bool(replica["retryTime"])) == (1, True)
    sdep.wait(lambda: sdep.uids().get("qwen-1") not in {None, before["qwen-1"]}, "another pod")
    sdep.wait_reason("Degraded", "AsExpected")
    assert sdep.uids()["qwen-0"] == before["qwen-0"]


@pytest.mark.parametrize("policy", ["Wait", "ForceDelete"])
def test_pod_of_a_lost_node(
    operator: OperatorProcess, sdep: Sdep, kubelet: Kubelet, policy: str
) -> None:
    sdep.create(
        nodeLost={"policy": policy, "afterSeconds": 1},
        rollout={"drainTimeoutSeconds": 0},
        template={"spec": {"schedulerName": "none"}},
    )
    sdep.wait(lambda: "qwen-0" in sdep.uids(), "the pod")
    before = sdep.uids()["qwen-0"]
    path = f"{sdep.pods_path}/qwen-0"
    # Bound to a node where no kubelet is.
    binding = {"metadata": {"name": "qwen-0"}, "target": {"kind": "Node", "name": "nowhere"}}
    sdep.api.create(f"{path}/binding", binding)
    sdep.api.delete(path, {"gracePeriodSeconds": 1})
    if policy == "Wait":
        sdep.wait_reason("Degraded", "NodeLost")
        assert sdep.uids()["qwen-0"] == before
    else:
        sdep.wait(lambda: sdep.uids().get("qwen-0") not in {None, before}, "another pod")


def test_pod_that_a_finalizer_holds_is_forced_once(
    operator: OperatorProcess, sdep: Sdep, api: Api
) -> None:
    sdep.create(
        nodeLost={"policy": "ForceDelete", "afterSeconds": 0},
        rollout={"drainTimeoutSeconds": 0},
    )
    sdep.wait_complete()
    path = f"{sdep.pods_path}/qwen-0"
    api.patch(path, {"metadata": {"finalizers": ["example.com/held"]}})
    api.delete(path, {"gracePeriodSeconds": 1})
    sdep.wait_reason("Degraded", "NodeLost")
    assert sdep.events().count("ReplicaDeleted") <= 1
    api.patch(path, {"metadata": {"finalizers": None}})
    sdep.wait_complete()


def test_pause_holds_everything_but_healing(operator: OperatorProcess, sdep: Sdep) -> None:
    sdep.create(parallelism={"dataParallelSize": 2})
    sdep.wait_complete()
    revision = sdep.status()["updateRevision"]
    sdep.change(paused=True, parallelism={"dataParallelSize": 4})
    sdep.wait_reason("Progressing", "Paused")
    before = sdep.uids()
    sdep.delete_pod(1, gracePeriodSeconds=0)
    sdep.wait(lambda: sdep.uids().get("qwen-1") not in {None, before["qwen-1"]}, "healed")
    sdep.change(template=annotated("2"))
    sdep.wait(
        lambda: sdep.status()["observedGeneration"] == sdep.read()["metadata"]["generation"],
        "the change seen",
    )
    assert (sdep.status()["updateRevision"], sdep.status()["deviceCount"]) == (revision, 2)
    sdep.change(paused=False)
    sdep.wait(lambda: sdep.status()["ready"] == "4/4", "four replicas")
    assert sdep.status()["updateRevision"] != revision


def test_conditions_follow_the_generation_and_can_be_waited_for(
    operator: OperatorProcess, sdep: Sdep
) -> None:
    sdep.create()
    sdep.wait_complete()
    before = sdep.condition("Available")
    sdep.change(rollout={"minReadySeconds": 1})
    sdep.wait_complete()
    after = sdep.condition("Available")
    assert after["observedGeneration"] == sdep.read()["metadata"]["generation"]
    assert after["lastTransitionTime"] == before["lastTransitionTime"]
    assert all(one["reason"] for one in sdep.status()["conditions"])
