from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cluster.api import Api, Body
from tests.cluster.errors import ApiRefused
from tests.contract.custom_resource import (
    DRY_RUN,
    STRICT,
    Kubectl,
    answer,
    deployments,
    install_crd,
    namespace_of,
    written,
)
from tests.contract.specs import ACCEPTED, ACCEPTED_NAMES, REFUSED, REFUSED_NAMES, deployment

from serving_contract.crd import CATEGORY, definition
from serving_contract.deployment import read_deployment_object
from serving_contract.errors import InvalidDeployment
from serving_contract.status import Condition, ReplicaStatus, Status

CONDITION = Condition(
    type="Available",
    status="True",
    observed_generation=1,
    last_transition_time="2026-01-02T03:04:05Z",
    reason="ReplicasReady",
)


def refused_fields(refused: ApiRefused) -> str:
    """Return the fields that a refusal names, and its words."""
    causes: list[Body] = refused.details.get("causes", [])
    return " ".join([*(cause.get("field", "") for cause in causes), refused.message])


def test_crd_is_established_and_structural(crd: Body) -> None:
    conditions = {one["type"]: one["status"] for one in crd["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert "NonStructuralSchema" not in conditions


def test_api_server_stores_the_crd_as_it_is_applied(crd: Body, api: Api) -> None:
    """So that a second apply of the same file changes nothing."""
    again = install_crd(api, definition())
    assert again["metadata"]["generation"] == crd["metadata"]["generation"]


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_good_spec_is_stored_as_python_reads_it(api: Api, crd: Body, spec: str) -> None:
    body = deployment(spec)
    stored = api.create(deployments("default"), body, DRY_RUN)
    assert read_deployment_object(stored).spec == read_deployment_object(body).spec


@pytest.mark.parametrize(("spec", "field"), REFUSED.values(), ids=REFUSED.keys())
def test_refusal_names_the_field(api: Api, crd: Body, spec: str, field: str) -> None:
    with pytest.raises(ApiRefused) as caught:
        api.create(deployments("default"), deployment(spec), DRY_RUN)
    assert caught.value.status in {400, 422}
    assert field in refused_fields(caught.value)


@pytest.mark.parametrize("name", ACCEPTED_NAMES)
def test_name_that_is_a_label_is_accepted(api: Api, crd: Body, name: str) -> None:
    api.create(deployments("default"), deployment("{}", name=name), DRY_RUN)


@pytest.mark.parametrize("name", REFUSED_NAMES)
def test_name_that_is_no_label_is_refused_by_its_field(api: Api, crd: Body, name: str) -> None:
    with pytest.raises(ApiRefused) as caught:
        api.create(deployments("default"), deployment("{}", name=name), DRY_RUN)
    assert "metadata.name" in refused_fields(caught.value)


ODD = st.text(alphabet=" \n\t\x00\x7f\u00a0\u2028aZ0é/.:@-_%'\"\\$", max_size=12)
LIKE_IT = {
    "uri": st.from_regex(r"(/|pvc://|hf://)[a-zA-Z0-9._/@ -]{0,20}", fullmatch=True),
    "resource": st.from_regex(r"(cpu|[a-zA-Z0-9.-]{1,10}/?[A-Za-z0-9._-]{0,8})", fullmatch=True),
    "fraction": st.from_regex(r"[01]?\.?[0-9]{0,4}", fullmatch=True),
    "surge": st.from_regex(r"[0-9]{1,3}%?", fullmatch=True),
    "key": st.from_regex(r"([A-Za-z0-9.-]{0,10}/)?[A-Za-z0-9._ -]{0,8}", fullmatch=True),
}


@given(
    uri=st.just("/m") | LIKE_IT["uri"] | ODD,
    served_name=st.just("m") | ODD,
    resource=st.just("cpu") | LIKE_IT["resource"] | ODD,
    fraction=st.just("0.9") | LIKE_IT["fraction"],
    surge=st.just(1) | LIKE_IT["surge"] | st.integers(-1, 513),
    key=st.just("a") | LIKE_IT["key"],
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_python_and_the_api_server_agree_on_any_spec(
    api: Api,
    crd: Body,
    uri: str,
    served_name: str,
    resource: str,
    fraction: str,
    surge: object,
    key: str,
) -> None:
    body = deployment("{}")
    body["spec"] = {
        "model": {"uri": uri, "servedName": served_name},
        "devices": {"resourceName": resource},
        "engine": {"deviceMemoryFraction": fraction},
        "rollout": {"maxSurge": surge},
        "router": {"service": {"annotations": {key: "x"}}},
    }
    status = answer(api, deployments("default"), body)
    assert status in {201, 400, 422}
    assert is_read(body) == (status == 201)


def is_read(body: Body) -> bool:
    try:
        read_deployment_object(body)
    except InvalidDeployment:
        return False
    return True


def test_all_defaults_are_seen_in_what_is_stored(api: Api, path: str) -> None:
    stored = api.create(path, deployment("{}"), STRICT)["spec"]
    assert stored == {
        "model": {"uri": "/m"},
        "parallelism": {"dataParallelSize": 1, "tensorParallelSize": 1},
        "devices": {"resourceName": "huawei.com/Ascend910"},
        "engine": {
            "kind": "AscendServing",
            "dtype": "auto",
            "maxNumSeqs": 256,
            "maxNumBatchedTokens": 8192,
            "deviceMemoryFraction": "0.9",
            "prefixCaching": True,
            "args": [],
        },
        "router": {
            "policy": "LeastPendingTokens",
            "maxPendingTokensPerReplica": 65536,
            "service": {"type": "ClusterIP", "port": 80, "annotations": {}},
        },
        "rollout": {
            "maxUnavailable": 1,
            "maxSurge": 0,
            "minReadySeconds": 0,
            "progressDeadlineSeconds": 1800,
            "drainTimeoutSeconds": 600,
        },
        "nodeLost": {"policy": "Wait", "afterSeconds": 60},
        "paused": False,
    }


def test_block_that_is_given_in_part_gets_the_other_defaults(api: Api, path: str) -> None:
    spec = "rollout: {maxSurge: 25%}\nrouter: {sessionAffinity: {header: x-session-id}}"
    stored = api.create(path, deployment(spec), STRICT)["spec"]
    assert stored["rollout"]["maxUnavailable"] == 1
    assert stored["router"]["sessionAffinity"]["ttlSeconds"] == 600


def test_unknown_field_is_pruned_unless_the_client_is_strict(api: Api, path: str) -> None:
    stored = api.create(path, deployment("engin: {}"), {"fieldValidation": "Warn"})
    assert "engin" not in stored["spec"]


def test_kubectl_warns_of_an_unknown_field(kubectl: Kubectl, path: str) -> None:
    words = ("-n", namespace_of(path), "apply", "--validate=warn", "-f", "-")
    body = json.dumps(deployment("engin: {}"))
    assert 'unknown field "spec.engin"' in kubectl.warnings(*words, text=body)


def test_kubectl_refuses_an_unknown_field_by_itself(kubectl: Kubectl, path: str) -> None:
    body = json.dumps(deployment("engin: {}"))
    with pytest.raises(subprocess.CalledProcessError) as caught:
        kubectl("-n", namespace_of(path), "apply", "-f", "-", text=body)
    assert 'unknown field "spec.engin"' in caught.value.stderr


def test_kubectl_applies_and_shows_the_defaults(kubectl: Kubectl, path: str) -> None:
    namespace = namespace_of(path)
    kubectl("-n", namespace, "apply", "-f", "-", text=json.dumps(deployment("{}")))
    shown = kubectl("-n", namespace, "get", "sdep", "qwen3", "-o", "yaml")
    assert "maxPendingTokensPerReplica: 65536" in shown


def test_template_survives_whatever_it_holds(api: Api, path: str) -> None:
    template = {
        "spec": {"containers": [{"name": "engine", "x": [1, None, {"y": None}]}], "z": None}
    }
    body = deployment("{}")
    body["spec"]["template"] = template
    assert api.create(path, body, STRICT)["spec"]["template"] == template
    api.patch(f"{path}/qwen3", {"spec": {"paused": True}})
    assert api.get(f"{path}/qwen3")["spec"]["template"] == template


def test_scale_changes_dp_and_tells_selector_and_replicas(api: Api, path: str) -> None:
    api.create(path, deployment("{}"), STRICT)
    status = Status(replicas=1, selector="ascend-serving.dev/name=qwen3")
    api.patch(f"{path}/qwen3/status", written(status))
    scale = api.get(f"{path}/qwen3/scale")
    assert scale["spec"]["replicas"] == 1
    assert scale["status"] == {"replicas": 1, "selector": "ascend-serving.dev/name=qwen3"}
    api.patch(f"{path}/qwen3/scale", {"spec": {"replicas": 3}})
    assert api.get(f"{path}/qwen3")["spec"]["parallelism"]["dataParallelSize"] == 3


def test_scale_beyond_the_limit_is_refused(api: Api, path: str) -> None:
    api.create(path, deployment("{}"), STRICT)
    with pytest.raises(ApiRefused, match="dataParallelSize"):
        api.patch(f"{path}/qwen3/scale", {"spec": {"replicas": 513}})


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_every_good_deployment_can_be_scaled(api: Api, path: str, spec: str) -> None:
    api.create(path, deployment(spec), STRICT)
    api.patch(f"{path}/qwen3/scale", {"spec": {"replicas": 0}})
    assert api.get(f"{path}/qwen3")["spec"]["parallelism"]["dataParallelSize"] == 0


def test_kubectl_scales(kubectl: Kubectl, api: Api, path: str) -> None:
    api.create(path, deployment("{}"), STRICT)
    kubectl("-n", namespace_of(path), "scale", "sdep/qwen3", "--replicas=2")
    assert api.get(f"{path}/qwen3")["spec"]["parallelism"]["dataParallelSize"] == 2


def test_status_is_kept_apart_from_the_spec(api: Api, path: str) -> None:
    created = api.create(path, {**deployment("{}"), **written(Status(replicas=9))}, STRICT)
    assert "status" not in created
    body = {**written(Status(replicas=1)), "spec": {"paused": True}}
    changed = api.patch(f"{path}/qwen3/status", body)
    assert (changed["status"]["replicas"], changed["spec"]["paused"]) == (1, False)
    assert changed["metadata"]["generation"] == 1


def test_full_status_is_stored_unchanged(api: Api, path: str) -> None:
    api.create(path, deployment("{}"), STRICT)
    replica = ReplicaStatus(
        index=0,
        pod="qwen3-0",
        device_ids="0,1",
        failures=2,
        retry_time="2026-01-02T03:04:05Z",
        failed_pod_uid="u",
    )
    status = Status(ready="0/1", replica_statuses=(replica,), conditions=(CONDITION,))
    stored = api.patch(f"{path}/qwen3/status", written(status), params=STRICT)
    assert stored["status"] == written(status)["status"]
    assert Status.model_validate(stored["status"]) == status


@pytest.mark.parametrize(
    ("status", "field"),
    [
        ({"conditions": [{"type": "Available"}]}, "status.conditions[0].reason"),
        ({"replicas": "1"}, "status.replicas"),
        ({"replicaStatuses": [{"pod": "a"}]}, "status.replicaStatuses[0].index"),
        ({"replicaStatuses": [{"index": 0}, {"index": 0}]}, "status.replicaStatuses[1]"),
    ],
    ids=["half a condition", "text for a number", "replica without index", "index twice"],
)
def test_wrong_status_is_refused(api: Api, path: str, status: Body, field: str) -> None:
    api.create(path, deployment("{}"), STRICT)
    with pytest.raises(ApiRefused) as caught:
        api.patch(f"{path}/qwen3/status", {"status": status})
    assert field in refused_fields(caught.value)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("spec", "only `model.uri` is required"),
        ("spec.template", "PodTemplateSpec laid over the replica pod"),
        ("spec.router.maxPendingTokensPerReplica", "refused with 429 and Retry-After"),
        ("spec.router.policy", "ENUM: LeastPendingTokens LeastRequests RoundRobin"),
        ("spec.rollout.maxSurge", "a percentage of dataParallelSize, rounded up"),
        ("status.replicaStatuses.deviceIDs", "as the device plugin wrote them on the pod"),
        ("status.conditions.reason", "One CamelCase word for programs"),
        ("metadata", "ownerReferences"),
    ],
)
def test_explain_reads_like_documentation(kubectl: Kubectl, field: str, words: str) -> None:
    assert words in " ".join(kubectl("explain", f"sdep.{field}").split())


@pytest.mark.parametrize("word", ["sdep", "servingdeployment", "servingdeployments", CATEGORY])
def test_kubectl_knows_it_by(kubectl: Kubectl, api: Api, path: str, word: str) -> None:
    api.create(path, deployment("{}"), STRICT)
    assert "qwen3" in kubectl("-n", namespace_of(path), "get", word)


def test_columns_show_what_matters(kubectl: Kubectl, api: Api, path: str) -> None:
    api.create(path, deployment("parallelism: {dataParallelSize: 2}"), STRICT)
    degraded = CONDITION.model_copy(update={"type": "Degraded", "reason": "Unschedulable"})
    status = Status(
        ready="1/2",
        device_count=2,
        url="http://qwen3.default.svc",
        conditions=(CONDITION, degraded),
    )
    api.patch(f"{path}/qwen3/status", written(status))
    namespace = namespace_of(path)
    heads, values = kubectl("-n", namespace, "get", "sdep", "-o", "wide").splitlines()
    assert heads.split() == [
        "NAME",
        "MODEL",
        "DP",
        "TP",
        "READY",
        "AVAILABLE",
        "DEGRADED",
        "AGE",
        "DEVICES",
        "RESOURCE",
        "URL",
    ]
    shown = values.split()
    assert shown[:7] == ["qwen3", "/m", "2", "1", "1/2", "True", "Unschedulable"]
    assert shown[8:] == ["2", "huawei.com/Ascend910", "http://qwen3.default.svc"]
    assert "URL" not in kubectl("-n", namespace, "get", "sdep")


def test_kubectl_waits_for_a_condition(kubectl: Kubectl, api: Api, path: str) -> None:
    api.create(path, deployment("{}"), STRICT)
    api.patch(f"{path}/qwen3/status", written(Status(conditions=(CONDITION,))))
    kubectl("-n", namespace_of(path), "wait", "--for=condition=Available", "sdep/qwen3")
