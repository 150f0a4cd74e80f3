from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.api import Api
from tests.contract.custom_resource import DRY_RUN, STRICT, Kubectl
from tests.images.content import project_version
from tests.manifests.documents import MANIFESTS, Body, built, kinds, only

from serving_contract.kubernetes import GROUP, OPERATOR

FOLDERS = sorted(
    str(found.parent.relative_to(MANIFESTS)) for found in MANIFESTS.rglob("kustomization.yaml")
)
SYSTEM = "ascend-serving-system"

# What the operator needs, and nothing else: (group, resource) -> verbs.
CHILD = {"get", "list", "watch", "create", "patch"}
NEEDED = {
    (GROUP, "servingdeployments"): {"get", "list", "watch"},
    (GROUP, "servingdeployments/status"): {"patch"},
    (GROUP, "servingdeployments/finalizers"): {"update"},
    ("", "pods"): {"get", "list", "watch", "create", "delete"},
    ("", "services"): CHILD,
    ("", "serviceaccounts"): CHILD,
    ("apps", "deployments"): CHILD,
    ("rbac.authorization.k8s.io", "roles"): CHILD,
    ("rbac.authorization.k8s.io", "rolebindings"): CHILD,
    ("policy", "poddisruptionbudgets"): CHILD,
    ("networking.k8s.io", "networkpolicies"): CHILD | {"delete"},
    ("discovery.k8s.io", "endpointslices"): {"get", "list", "watch"},
    ("", "events"): {"create"},
}
LEASES = {("coordination.k8s.io", "leases"): {"get", "create", "update"}}


def granted(role: Body) -> dict[tuple[str, str], set[str]]:
    return {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def named(objects: list[Body], kind: str, name: str) -> Body:
    return only([one for one in objects if one["metadata"]["name"] == name], kind)


def operator_pod(objects: list[Body]) -> Body:
    template: Body = only(objects, "Deployment")["spec"]["template"]
    return template


def test_folders_are_the_promised_ones() -> None:
    assert FOLDERS == [".", "crd", "namespaced", "operator"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_api_server_takes_every_object_of_a_folder(
    kubectl: Kubectl, api: Api, namespace: str, folder: str
) -> None:
    for one in built(kubectl, folder):
        if "namespace" in one["metadata"]:
            # A dry run makes no namespace, and nothing can be tried in one that is not there.
            one["metadata"]["namespace"] = namespace
        tried = api.patch(api.path_of(one), one, "apply", DRY_RUN)
        assert tried["metadata"]["name"] == one["metadata"]["name"]


def test_whole_is_the_crd_and_the_operator(kubectl: Kubectl) -> None:
    parts = [*built(kubectl, "crd"), *built(kubectl, "operator")]
    whole = built(kubectl, ".")
    assert len(whole) == len(parts)
    assert all(part in whole for part in parts)


def test_deleting_the_operator_keeps_the_crd(kubectl: Kubectl) -> None:
    assert "CustomResourceDefinition" not in kinds(built(kubectl, "operator"))


@pytest.mark.parametrize(("folder", "kind"), [("operator", "ClusterRole"), ("namespaced", "Role")])
def test_operator_may_do_what_it_needs_and_nothing_else(
    kubectl: Kubectl, folder: str, kind: str
) -> None:
    objects = built(kubectl, folder)
    assert granted(named(objects, kind, OPERATOR)) == NEEDED
    assert granted(named(objects, "Role", f"{OPERATOR}-lease")) == LEASES


@pytest.mark.parametrize(("folder", "where"), [("operator", SYSTEM), ("namespaced", "default")])
def test_every_binding_is_to_the_operators_account(
    kubectl: Kubectl, folder: str, where: str
) -> None:
    objects = built(kubectl, folder)
    account = only(objects, "ServiceAccount")["metadata"]
    assert (account["name"], account["namespace"]) == (OPERATOR, where)
    bindings = [one for one in objects if one["kind"].endswith("Binding")]
    subject = {"kind": "ServiceAccount", "name": OPERATOR, "namespace": where}
    assert [one["subjects"] for one in bindings] == [[subject]] * 2


def test_namespaced_variant_has_nothing_of_the_whole_cluster(kubectl: Kubectl) -> None:
    objects = built(kubectl, "namespaced")
    assert kinds(objects) == {"ServiceAccount", "Role", "RoleBinding", "Deployment"}
    assert {one["metadata"]["namespace"] for one in objects} == {"default"}
    assert {one["roleRef"]["kind"] for one in objects if "roleRef" in one} == {"Role"}
    (operator,) = operator_pod(objects)["spec"]["containers"]
    assert operator["args"][0] == "--namespace=$(POD_NAMESPACE)"
    assert "--all-namespaces" not in operator["args"]


def test_namespaced_variant_follows_the_namespace_of_an_overlay(
    kubectl: Kubectl, tmp_path: Path
) -> None:
    base = os.path.relpath(MANIFESTS / "namespaced", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(f"namespace: team-a\nresources: [{base}]\n")
    objects = built(kubectl, str(tmp_path))
    bindings = [one for one in objects if one["kind"] == "RoleBinding"]
    assert {one["subjects"][0]["namespace"] for one in bindings} == {"team-a"}


def test_images_are_those_of_this_version(kubectl: Kubectl) -> None:
    (operator,) = operator_pod(built(kubectl, "operator"))["spec"]["containers"]
    assert operator["image"] == f"ascend-serving/operator:{project_version()}"
    assert operator["command"] == ["ascend-serving", "operator"]
    assert operator["args"] == [
        "--all-namespaces",
        f"--engine-image=ascend-serving/engine-npu:{project_version()}",
        f"--engine-cpu-image=ascend-serving/engine-cpu:{project_version()}",
        f"--router-image=ascend-serving/router:{project_version()}",
        "--log-format=json",
    ]


def test_operators_pod_is_admitted_under_the_strictest_pod_security(
    kubectl: Kubectl, api: Api, namespace: str
) -> None:
    strict = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": strict}})
    objects = built(kubectl, "operator")
    account = {"metadata": {"name": OPERATOR}}
    api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", account, STRICT)
    pod = {"metadata": {"name": "operator"}, "spec": operator_pod(objects)["spec"]}
    api.create(f"/api/v1/namespaces/{namespace}/pods", pod, DRY_RUN)


def test_namespace_of_the_operator_asks_for_the_strictest_pod_security(kubectl: Kubectl) -> None:
    labels = only(built(kubectl, "operator"), "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_selector_finds_the_operators_pods(kubectl: Kubectl) -> None:
    objects = built(kubectl, "operator")
    wanted = only(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= operator_pod(objects)["metadata"]["labels"].items()


@pytest.fixture
def user_roles(kubectl: Kubectl, api: Api, namespace: str) -> Iterator[None]:
    """The roles for users, under names of the test's own: they act by their labels."""
    paths = []
    for role in built(kubectl, "operator"):
        if role["kind"] == "ClusterRole" and role["metadata"]["name"] != OPERATOR:
            role["metadata"]["name"] += f"-{namespace}"
            paths.append(api.path_of(role))
            api.patch(paths[-1], role, "apply", STRICT)
    yield
    for path in paths:
        api.delete(path)


def bind(api: Api, namespace: str, *, user: str, role: str) -> None:
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": user},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }
    api.create(f"/apis/{group}/v1/namespaces/{namespace}/rolebindings", binding, STRICT)


@pytest.mark.usefixtures("controllers", "user_roles")
def test_who_may_edit_a_namespace_may_edit_and_scale_its_deployments(
    api: Api, namespace: str
) -> None:
    bind(api, namespace, user="editor", role="edit")
    bind(api, namespace, user="viewer", role="view")

    def may(user: str, verb: str, subresource: str = "") -> bool:
        return is_allowed(api, user, namespace, verb, subresource)

    api.wait(lambda: may("editor", "create") and may("viewer", "list"), "the roles aggregate")
    assert may("editor", "patch", "scale")
    assert may("viewer", "get", "status")
    assert not may("viewer", "patch")
    assert not may("editor", "patch", "status")


def is_allowed(api: Api, user: str, namespace: str, verb: str, subresource: str) -> bool:
    review = {
        "spec": {
            "user": user,
            "resourceAttributes": {
                "namespace": namespace,
                "verb": verb,
                "group": GROUP,
                "resource": "servingdeployments",
                "subresource": subresource,
            },
        }
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(api.create(path, review)["status"]["allowed"])
