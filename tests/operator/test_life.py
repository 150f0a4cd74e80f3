"""From creation to deletion, on a real API server."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.cluster.api import Api
from tests.cluster.audit import Audit
from tests.operator.conftest import StartOperator
from tests.operator.operator_process import OperatorProcess, deployment
from tests.operator.sdep import Sdep

from serving_contract.deployment import read_deployment_object
from serving_operator.preview import objects_of
from serving_operator.settings import Defaults, Images

ASCEND = {"resourceName": "huawei.com/Ascend910"}
WRITES = {"create", "update", "patch", "delete", "deletecollection"}


def own_writes(audit: Audit, operator: OperatorProcess, since: int) -> list[str]:
    """What the operator wrote, beside its Lease."""
    entries = audit.entries(user=operator.user, since=since)
    writes = [e for e in entries if e.verb in WRITES and e.resource != "leases"]
    return [f"{e.verb} {e.resource} {e.name}" for e in writes]


def test_deployment_becomes_pods_router_and_services(
    operator: OperatorProcess, sdep: Sdep, api: Api, namespace: str, audit: Audit
) -> None:
    since = audit.mark()
    sdep.create(parallelism={"dataParallelSize": 2, "tensorParallelSize": 2}, devices=ASCEND)
    sdep.wait_complete()
    assert sorted(sdep.uids()) == ["qwen-0", "qwen-1"]
    for index, pod in enumerate(sdep.pods()):
        engine = pod["spec"]["containers"][0]
        assert engine["resources"]["limits"] == {"huawei.com/Ascend910": "2"}
        [owner] = pod["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["controller"]) == ("ServingDeployment", True)
        labels = pod["metadata"]["labels"]
        assert labels["ascend-serving.dev/replica-index"] == str(index)
        assert labels["ascend-serving.dev/revision"] == sdep.status()["updateRevision"]
    for kind in ("deployments", "services", "serviceaccounts", "roles"):
        root = {"deployments": "/apis/apps/v1", "roles": "/apis/rbac.authorization.k8s.io/v1"}
        path = f"{root.get(kind, '/api/v1')}/namespaces/{namespace}/{kind}"
        name = "qwen" if kind == "services" else "qwen-router"
        fields = api.get(f"{path}/{name}")["metadata"]["managedFields"]
        applied = [one["manager"] for one in fields if one["operation"] == "Apply"]
        assert applied == ["ascend-serving-operator"]
    assert not [e for e in audit.entries(user=operator.user, since=since) if e.code == 403]


def test_plan_prints_exactly_what_is_created(
    start_operator: StartOperator, kubelet: object, sdep: Sdep, api: Api, namespace: str
) -> None:
    flags = ("--engine-image", "e:1", "--engine-cpu-image", "c:1", "--router-image", "r:1")
    start_operator(*flags).wait_ready()
    sdep.create(parallelism={"dataParallelSize": 2}, template={"spec": {"priority": 0}})
    sdep.wait_complete()
    images = Images(engine="e:1", engine_cpu="c:1", router="r:1")
    wanted = objects_of(read_deployment_object(sdep.read()), Defaults(images=images))
    assert len(wanted) == 10
    for body in wanted:
        live = api.get(api.path_of(body, namespace))
        missing = list(differences(_without_uid(body), live))
        assert missing == [], f"{body['kind']} {missing}"


def _without_uid(body: dict[str, Any]) -> dict[str, Any]:
    text = yaml.safe_dump(body)
    parsed: dict[str, Any] = yaml.safe_load(text)
    del parsed["metadata"]["ownerReferences"]
    return parsed


def differences(meant: Any, live: Any, path: str = "") -> Any:
    """Yield where `live` does not hold what is meant; the API server may have added to it."""
    if isinstance(meant, dict) and isinstance(live, dict):
        for key, value in meant.items():
            yield from differences(value, live.get(key), f"{path}.{key}")
    elif isinstance(meant, list) and isinstance(live, list) and len(meant) <= len(live):
        for position, value in enumerate(meant):
            yield from differences(value, live[position], f"{path}[{position}]")
    elif meant != live and path not in {".spec.containers[0].resources.requests.memory"}:
        yield path, meant, live


def test_idle_deployment_costs_no_write_and_its_version_stays(
    start_operator: StartOperator, kubelet: object, sdep: Sdep, audit: Audit
) -> None:
    operator = start_operator(resync_s=0.5).wait_ready()
    sdep.create(parallelism={"dataParallelSize": 2})
    sdep.wait_complete()
    version = sdep.read()["metadata"]["resourceVersion"]
    since = audit.mark()
    sdep.wait(lambda: _lists(audit, operator, since) >= 10, "ten resyncs")
    assert own_writes(audit, operator, since) == []
    assert sdep.read()["metadata"]["resourceVersion"] == version


def _lists(audit: Audit, operator: OperatorProcess, since: int) -> int:
    entries = audit.entries(user=operator.user, since=since)
    return sum(e.verb == "list" and e.resource == "servingdeployments" for e in entries)


def test_annotations_and_labels_of_others_cause_no_churn(
    operator: OperatorProcess, sdep: Sdep, api: Api, audit: Audit
) -> None:
    sdep.create()
    sdep.wait_complete()
    since = audit.mark()
    foreign = {
        "labels": {"ring-controller.atlas": "ascend-910b"},
        "annotations": {"huawei.com/AscendReal": "Ascend910-3,Ascend910-12", "predicate-time": "1"},
    }
    api.patch(f"{sdep.pods_path}/qwen-0", {"metadata": foreign})
    sdep.wait(lambda: sdep.status()["replicaStatuses"][0]["deviceIDs"] == "3,12", "device ids")
    pod = sdep.pod(0)["metadata"]
    assert pod["labels"].items() >= foreign["labels"].items()
    assert own_writes(audit, operator, since) == ["patch servingdeployments qwen"]


def test_scaling_makes_and_takes_the_highest_indexes(operator: OperatorProcess, sdep: Sdep) -> None:
    sdep.create()
    sdep.wait_complete()
    first = sdep.uids()["qwen-0"]
    sdep.api.patch(f"{sdep.path}/scale", {"spec": {"replicas": 3}})
    sdep.wait(lambda: sdep.status()["ready"] == "3/3", "three replicas")
    sdep.api.patch(f"{sdep.path}/scale", {"spec": {"replicas": 0}})
    sdep.wait(lambda: sdep.uids() == {}, "no replica")
    sdep.wait_reason("Available", "ScaledToZero")
    sdep.api.patch(f"{sdep.path}/scale", {"spec": {"replicas": 1}})
    sdep.wait(lambda: sdep.status()["ready"] == "1/1", "one replica")
    assert sdep.uids()["qwen-0"] != first
    scale = sdep.api.get(f"{sdep.path}/scale")
    assert scale["status"]["selector"].startswith("ascend-serving.dev/name=qwen,")


@pytest.mark.parametrize("by_force", [False, True], ids=["gently", "by force"])
def test_deleted_replica_comes_back(operator: OperatorProcess, sdep: Sdep, by_force: bool) -> None:
    sdep.create(parallelism={"dataParallelSize": 2})
    sdep.wait_complete()
    before = sdep.uids()
    sdep.delete_pod(1, **({"gracePeriodSeconds": 0} if by_force else {}))
    sdep.wait(lambda: sdep.uids().get("qwen-1") not in {None, before["qwen-1"]}, "a new qwen-1")
    sdep.wait(lambda: sdep.status()["ready"] == "2/2", "ready again")
    assert sdep.uids()["qwen-0"] == before["qwen-0"]


def test_children_go_with_their_owner_though_no_operator_runs(
    operator: OperatorProcess, sdep: Sdep, api: Api, namespace: str
) -> None:
    sdep.create()
    sdep.wait_complete()
    assert operator.stop() == 0
    api.delete(sdep.path)
    services = f"/api/v1/namespaces/{namespace}/services"
    sdep.wait(lambda: not sdep.pods() and not api.list(services), "everything collected")


def test_orphans_are_not_adopted(operator: OperatorProcess, sdep: Sdep, api: Api) -> None:
    sdep.create()
    sdep.wait_complete()
    before = sdep.uids()
    api.delete(sdep.path, {"propagationPolicy": "Orphan"})
    sdep.wait(lambda: not api.exists(sdep.path), "the owner gone")
    sdep.create()
    conflict = sdep.wait_reason("Accepted", "NameConflict")
    assert "Pod qwen-0" in conflict["message"]
    assert sdep.uids() == before


def test_deployment_made_anew_waits_for_the_pods_of_the_old_one(
    operator: OperatorProcess, kubelet: Any, sdep: Sdep, api: Api
) -> None:
    sdep.create()
    sdep.wait_complete()
    old = sdep.uids()["qwen-0"]
    kubelet.grace_s = 600
    api.delete(sdep.path)
    sdep.wait(lambda: not api.exists(sdep.path), "the owner gone")
    sdep.create()
    message = sdep.wait_reason("Progressing", "Scaling")["message"]
    assert "of the deleted ServingDeployment" in message
    kubelet.grace_s = 0
    sdep.wait_complete()
    assert sdep.uids()["qwen-0"] != old


def test_foreign_pod_in_the_way_is_left_alone_until_it_goes(
    operator: OperatorProcess, sdep: Sdep, api: Api
) -> None:
    image = {"containers": [{"name": "theirs", "image": "theirs"}]}
    theirs = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "qwen-0"}, "spec": image}
    uid = api.create(sdep.pods_path, theirs)["metadata"]["uid"]
    sdep.create(parallelism={"dataParallelSize": 2})
    conflict = sdep.wait_reason("Accepted", "NameConflict")
    assert "Pod qwen-0" in conflict["message"]
    sdep.wait(lambda: "qwen-1" in sdep.uids(), "the other replica")
    assert sdep.pod(0)["metadata"]["uid"] == uid
    api.delete(f"{sdep.pods_path}/qwen-0", {"gracePeriodSeconds": 0})
    sdep.wait_complete()


def test_foreign_service_in_the_way_is_named_and_never_changed(
    operator: OperatorProcess, sdep: Sdep, api: Api, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/services"
    theirs = {"metadata": {"name": "qwen"}, "spec": {"ports": [{"port": 1}]}}
    version = api.create(path, theirs)["metadata"]["resourceVersion"]
    sdep.create()
    assert "Service qwen" in sdep.wait_reason("Accepted", "NameConflict")["message"]
    assert api.get(f"{path}/qwen")["metadata"]["resourceVersion"] == version


def test_drift_of_our_fields_is_undone_and_that_of_others_is_kept(
    operator: OperatorProcess, sdep: Sdep, api: Api, namespace: str
) -> None:
    sdep.create(router={})
    sdep.wait_complete()
    service = f"/api/v1/namespaces/{namespace}/services/qwen"
    router = f"/apis/apps/v1/namespaces/{namespace}/deployments/qwen-router"
    api.patch(f"{router}/scale", {"spec": {"replicas": 5}})
    theirs = {"metadata": {"annotations": {"theirs": "1"}}, "spec": {"selector": {"x": "y"}}}
    api.patch(service, theirs)
    wanted = {"ascend-serving.dev/name": "qwen", "app.kubernetes.io/component": "router"}

    def selector() -> Any:
        return api.get(service)["spec"]["selector"]

    sdep.wait(lambda: selector() == wanted, "our selector again")
    assert api.get(service)["metadata"]["annotations"]["theirs"] == "1"
    sdep.change(router={"policy": "RoundRobin"})
    sdep.wait(
        lambda: (
            "RoundRobin" in api.get(router)["spec"]["template"]["spec"]["containers"][0]["args"]
        ),
        "the new policy",
    )
    assert api.get(router)["spec"]["replicas"] == 5


def test_router_setting_that_is_taken_back_vanishes_from_its_pods(
    operator: OperatorProcess, sdep: Sdep, api: Api, namespace: str
) -> None:
    selector = {"kubernetes.io/os": "linux"}
    template = {"spec": {"nodeSelector": selector}}
    sdep.create(router={"replicas": 1, "template": template})
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/qwen-router"

    def node_selector() -> Any:
        return api.get(path)["spec"]["template"]["spec"].get("nodeSelector")

    sdep.wait(lambda: node_selector() == selector, "the selector")
    sdep.change(router={"template": None})
    sdep.wait(lambda: node_selector() is None, "no selector")


def test_port_type_and_annotations_of_the_service_can_be_changed(
    operator: OperatorProcess, sdep: Sdep, api: Api, namespace: str
) -> None:
    sdep.create(router={"replicas": 1, "service": {"annotations": {"a": "1"}}})
    sdep.wait_complete()
    path = f"/api/v1/namespaces/{namespace}/services/qwen"

    def seen() -> Any:
        service = api.get(path)
        ports = [port["port"] for port in service["spec"]["ports"]]
        return ports, service["spec"]["type"], service["metadata"]["annotations"].get("a")

    sdep.wait(lambda: seen() == ([80], "ClusterIP", "1"), "as created")
    sdep.change(router={"service": {"port": 8080, "type": "NodePort", "annotations": {"a": None}}})
    sdep.wait(lambda: seen() == ([8080], "NodePort", None), "as changed")
    sdep.wait_complete()


def test_deleted_child_comes_back(
    operator: OperatorProcess, sdep: Sdep, api: Api, namespace: str
) -> None:
    sdep.create()
    sdep.wait_complete()
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/qwen-router"
    before = api.get(path)["metadata"]["uid"]
    api.delete(path)
    sdep.wait(lambda: api.get(path)["metadata"]["uid"] != before, "another role")


def test_network_policy_comes_only_when_it_is_asked_for(
    start_operator: StartOperator, kubelet: object, sdep: Sdep, api: Api, namespace: str
) -> None:
    path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    with_policy = start_operator("--network-policy").wait_ready()
    sdep.create()
    sdep.wait(lambda: api.exists(f"{path}/qwen-replicas"), "the policy")
    with_policy.stop()
    start_operator(name="operator-1").wait_ready()
    sdep.wait(lambda: not api.exists(f"{path}/qwen-replicas"), "no policy")


def test_restricted_namespace_admits_every_pod(
    operator: OperatorProcess, sdep: Sdep, api: Api, namespace: str
) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": labels}})
    sdep.create(devices=ASCEND)
    sdep.wait_complete()


def test_second_deployment_is_not_disturbed(
    operator: OperatorProcess, api: Api, namespace: str
) -> None:
    sdeps = [Sdep(api, namespace, name) for name in ("qwen", "qwen-0")]
    for one in sdeps:
        api.create(one.collection, deployment(one.name, parallelism={"dataParallelSize": 2}))
    for one in sdeps:
        one.wait_complete()
    assert sorted(sdeps[1].uids()) == ["qwen-0-0", "qwen-0-1"]
