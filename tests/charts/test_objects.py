from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.charts.helm import CHART, SYSTEM, Helm, annotations_of, installed, key_of
from tests.contract.custom_resource import Kubectl
from tests.images.content import project_version
from tests.manifests.documents import MANIFESTS, Body, built, kinds, only

from serving_contract.crd import definition
from serving_contract.kubernetes import OPERATOR

OURS = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
}
"""Labels by which Helm knows its objects."""
BESIDE = {("PodDisruptionBudget", SYSTEM, OPERATOR), ("Service", SYSTEM, OPERATOR)}
"""What the manifests have not."""


def bare(one: Body) -> Body:
    """Return an object without what a chart adds to each."""
    labels = {name: text for name, text in one["metadata"]["labels"].items() if name not in OURS}
    metadata = {**one["metadata"], "labels": labels}
    kept = {
        name: text for name, text in annotations_of(one).items() if not name.startswith("helm.sh")
    }
    metadata.pop("annotations", None)
    return {**one, "metadata": metadata | ({"annotations": kept} if kept else {})}


def operator_container(objects: list[Body]) -> Body:
    container: Body
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return container


def test_chart_installs_what_the_manifests_do(helm: Helm, kubectl: Kubectl) -> None:
    theirs = {key_of(one): one for one in built(kubectl, ".") if one["kind"] != "Namespace"}
    ours = {key_of(one): bare(one) for one in installed(helm.template())}
    assert set(ours) - set(theirs) == BESIDE
    for name, one in theirs.items():
        assert ours[name] == one, name


def test_namespaced_chart_grants_what_the_namespaced_manifests_do(
    helm: Helm, kubectl: Kubectl
) -> None:
    objects = installed(helm.template("operator.namespaces={default}", namespace="default"))
    ours = {key_of(one): bare(one) for one in objects}
    for one in built(kubectl, "namespaced"):
        if one["kind"] != "Deployment":
            assert ours[key_of(one)] == one


def test_namespaced_chart_has_nothing_of_the_whole_cluster_but_the_crd(helm: Helm) -> None:
    objects = helm.template("operator.namespaces={team-a,team-b}")
    whole = [one for one in objects if "namespace" not in one["metadata"]]
    assert kinds(whole) == {"CustomResourceDefinition"}
    args = operator_container(objects)["args"]
    assert args[:2] == ["--namespace=team-a", "--namespace=team-b"]
    assert "--all-namespaces" not in args
    roles = {key_of(one) for one in objects if one["kind"] == "Role"}
    assert roles == {
        ("Role", "team-a", OPERATOR),
        ("Role", "team-b", OPERATOR),
        ("Role", SYSTEM, f"{OPERATOR}-lease"),
    }


def test_every_object_goes_where_the_release_is(helm: Helm) -> None:
    objects = helm.template(namespace="elsewhere")
    there = {one["metadata"]["namespace"] for one in objects if "namespace" in one["metadata"]}
    assert there == {"elsewhere"}
    subjects = [subject for one in objects for subject in one.get("subjects", [])]
    assert {subject["namespace"] for subject in subjects} == {"elsewhere"}


def test_crd_is_the_generated_one_and_stays(helm: Helm) -> None:
    crd = only(helm.template(), "CustomResourceDefinition")
    assert annotations_of(crd) == {"helm.sh/resource-policy": "keep"}
    assert bare(crd) == yaml.safe_load(yaml.safe_dump(definition()))


def test_copy_of_the_crd_is_current() -> None:
    name = "servingdeployments.yaml"
    assert (CHART / "files" / name).read_bytes() == (MANIFESTS / "crd" / name).read_bytes()


def test_crd_can_be_left_out(helm: Helm) -> None:
    assert "CustomResourceDefinition" not in kinds(helm.template("crds.install=false"))


def test_versions_are_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (project_version(), project_version())


def test_images_are_those_that_are_named(helm: Helm) -> None:
    names = ("operator", "router", "engine", "engineCPU")
    settings = [f"images.{name}=registry.example.com/{name}:1" for name in names]
    operator = operator_container(helm.template(*settings))
    assert operator["image"] == "registry.example.com/operator:1"
    assert {
        "--engine-image=registry.example.com/engine:1",
        "--engine-cpu-image=registry.example.com/engineCPU:1",
        "--router-image=registry.example.com/router:1",
    } <= set(operator["args"])


PLACES = [
    ("operator.nodeSelector.pool=system", "nodeSelector", {"pool": "system"}),
    ("operator.tolerations[0].key=x", "tolerations", [{"key": "x"}]),
    ("operator.priorityClassName=high", "priorityClassName", "high"),
    ("images.pullSecrets={a,b}", "imagePullSecrets", [{"name": "a"}, {"name": "b"}]),
]


@pytest.mark.parametrize(("setting", "field", "value"), PLACES, ids=lambda value: str(value)[:40])
def test_operators_pod_runs_where_it_is_told(
    helm: Helm, setting: str, field: str, value: Any
) -> None:
    pod = only(helm.template(setting), "Deployment")["spec"]["template"]["spec"]
    assert pod[field] == value


def test_pod_labels_and_annotations_are_added(helm: Helm) -> None:
    objects = helm.template("operator.podLabels.team=a", "operator.podAnnotations.note=b")
    deployment = only(objects, "Deployment")["spec"]
    metadata = deployment["template"]["metadata"]
    assert metadata["annotations"] == {"note": "b"}
    assert metadata["labels"] == {**deployment["selector"]["matchLabels"], "team": "a"}


def test_new_version_alone_replaces_no_label_of_a_pod(helm: Helm) -> None:
    metadata = only(helm.template(), "Deployment")["spec"]["template"]["metadata"]
    assert not OURS & set(metadata["labels"])


def test_one_operator_has_no_disruption_budget(helm: Helm) -> None:
    assert "PodDisruptionBudget" not in kinds(helm.template("operator.replicas=1"))


def test_network_policy_starts_the_operator_with_it(helm: Helm) -> None:
    objects = helm.template("networkPolicy.enabled=true")
    assert "--network-policy" in operator_container(objects)["args"]
    policy = only(objects, "NetworkPolicy")["spec"]
    assert policy["podSelector"] == only(objects, "Deployment")["spec"]["selector"]
    (open_port,) = (port["port"] for rule in policy["ingress"] for port in rule["ports"])
    assert open_port in {port["name"] for port in operator_container(objects)["ports"]}
