"""Releases on a control plane of their own, for a chart has a whole cluster to itself."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.charts.helm import CHART, RELEASE, SYSTEM, Helm, HelmRefused
from tests.charts.release import CRD, NO_CRD, Cluster, next_version
from tests.cluster.control_plane import ControlPlane
from tests.cluster.crds import apply_crds
from tests.cluster.fixtures import OwnControlPlane
from tests.cluster.kubelet import Kubelet
from tests.cluster.pod_status import Succeeded
from tests.contract.custom_resource import Kubectl
from tests.images.content import ROOT
from tests.manifests.documents import MANIFESTS, Body
from tests.operator.operator_process import OperatorProcess
from tests.operator.sdep import Sdep

from serving_contract.kubernetes import OPERATOR


@pytest.fixture(scope="module")
def plane(module_control_plane: OwnControlPlane) -> ControlPlane:
    started: ControlPlane = module_control_plane()
    if not started.has_controllers:
        pytest.skip("a release needs Deployments and garbage collection; unset KUBEBUILDER_ASSETS")
    return started


@pytest.fixture(scope="module")
def kubelet_of_module(plane: ControlPlane) -> Iterator[Kubelet]:
    with Kubelet(plane.api, nodes=("chart-a", "chart-b")) as kubelet:
        yield kubelet


@pytest.fixture
def kubelet(kubelet_of_module: Kubelet) -> Iterator[Kubelet]:
    yield kubelet_of_module
    kubelet_of_module.release()


@pytest.fixture
def cluster(plane: ControlPlane, kubelet: Kubelet, helm: Helm) -> Cluster:
    """A cluster without the chart and without the CRD."""
    found = Cluster(plane, helm)
    found.clear()
    return found


@pytest.fixture
def team(plane: ControlPlane) -> str:
    """A namespace of users."""
    name = f"team-{secrets.token_hex(4)}"
    plane.make_namespace(name)
    return name


@pytest.fixture
def operators() -> Iterator[list[OperatorProcess]]:
    """What is started here is ended with the test."""
    started: list[OperatorProcess] = []
    yield started
    for operator in started:
        operator.end()


def start(
    cluster: Cluster, operators: list[OperatorProcess], folder: Path, namespace: str = SYSTEM
) -> OperatorProcess:
    """Start what the operator's Deployment now describes, in place of what ran."""
    for running in operators:
        running.stop()
    operators[:] = [cluster.operator(folder / f"{secrets.token_hex(4)}.log", namespace)]
    return operators[0].start().wait_ready()


def test_upgrade_to_the_next_version_touches_no_replica(
    cluster: Cluster, team: str, operators: list[OperatorProcess], tmp_path: Path
) -> None:
    cluster.install()
    start(cluster, operators, tmp_path)
    served = Sdep(cluster.api, team)
    served.create(parallelism={"dataParallelSize": 2})
    served.wait_complete()
    before = served.uids()
    cluster.upgrade(
        "--set", "operator.replicas=3", "--set", "networkPolicy.enabled=true",
        chart=next_version(tmp_path),
    )  # fmt: skip
    start(cluster, operators, tmp_path)
    policy = f"/apis/networking.k8s.io/v1/namespaces/{team}/networkpolicies/qwen-replicas"
    cluster.api.wait(lambda: cluster.api.exists(policy), "the new operator has made a policy")
    new = "ascend-serving/router:99.0.0"
    cluster.api.wait(lambda: router_image(cluster, team) == new, "routers have the new image")
    served.wait_complete()
    assert served.uids() == before
    served.change(parallelism={"dataParallelSize": 3})
    served.wait_complete()
    assert served.uids().items() > before.items()
    (engine,) = served.pod(2)["spec"]["containers"]
    assert engine["image"] == "ascend-serving/engine-cpu:99.0.0"


def router_image(cluster: Cluster, namespace: str) -> str:
    deployment = cluster.api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/qwen-router")
    (router,) = deployment["spec"]["template"]["spec"]["containers"]
    return str(router["image"])


def test_uninstalling_keeps_the_crd_and_what_serves_and_installing_takes_it_back(
    cluster: Cluster, team: str, operators: list[OperatorProcess], tmp_path: Path
) -> None:
    cluster.install()
    start(cluster, operators, tmp_path)
    served = Sdep(cluster.api, team)
    served.create(parallelism={"dataParallelSize": 2})
    served.wait_complete()
    before, crd = served.uids(), cluster.api.get(CRD)["metadata"]["uid"]
    operators.pop().stop()
    cluster.uninstall()
    assert cluster.api.get(CRD)["metadata"]["uid"] == crd
    roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    assert not cluster.api.exists(f"{roles}/{OPERATOR}")
    assert served.read()["spec"]["parallelism"]["dataParallelSize"] == 2
    assert served.uids() == before
    cluster.install()
    start(cluster, operators, tmp_path)
    served.change(paused=True)
    served.wait_reason("Progressing", "Paused")
    assert served.uids() == before
    assert cluster.api.get(CRD)["metadata"]["uid"] == crd


def test_leaving_the_crd_to_others_deletes_nothing(cluster: Cluster, team: str) -> None:
    cluster.install()
    served = Sdep(cluster.api, team)
    uid = served.create()["metadata"]["uid"]
    cluster.upgrade(*NO_CRD)
    assert served.read()["metadata"]["uid"] == uid


def test_second_release_is_refused_and_changes_nothing(cluster: Cluster) -> None:
    cluster.install()
    before, crd = meant(cluster.deployment()), meant(cluster.api.get(CRD))
    with pytest.raises(HelmRefused, match="cannot be imported into the current release"):
        cluster.install(name="second", namespace="elsewhere")
    with pytest.raises(HelmRefused, match=r'ClusterRole "ascend-serving-.*invalid ownership'):
        cluster.install(*NO_CRD, name="third", namespace="elsewhere")
    assert (meant(cluster.deployment()), meant(cluster.api.get(CRD))) == (before, crd)
    assert cluster.releases() == [(RELEASE, SYSTEM)]


def meant(one: Body) -> tuple[str, Body, Body, Body]:
    """Return what of an object is not its status."""
    metadata = one["metadata"]
    own = {"deployment.kubernetes.io/revision"}
    annotations = {n: text for n, text in metadata["annotations"].items() if n not in own}
    return metadata["uid"], metadata["labels"], annotations, one["spec"]


def test_what_kubectl_applied_is_taken_over_only_on_demand(cluster: Cluster) -> None:
    kubectl = Kubectl.of(cluster.plane)
    kubectl("apply", "-k", MANIFESTS)
    uids = cluster.api.get(CRD)["metadata"]["uid"], cluster.deployment()["metadata"]["uid"]
    with pytest.raises(HelmRefused, match="cannot be imported into the current release"):
        cluster.install()
    cluster.install("--take-ownership")
    crd, deployment = cluster.api.get(CRD), cluster.deployment()
    assert (crd["metadata"]["uid"], deployment["metadata"]["uid"]) == uids
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    labels = cluster.api.get(f"/api/v1/namespaces/{SYSTEM}")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_namespaced_releases_stand_side_by_side(
    cluster: Cluster, plane: ControlPlane, operators: list[OperatorProcess], tmp_path: Path
) -> None:
    apply_crds(cluster.api)
    for name in ("blue", "green"):
        namespace = f"{name}-{secrets.token_hex(4)}"
        plane.make_namespace(namespace)
        own = ("--set", f"operator.namespaces={{{namespace}}}")
        cluster.install(*NO_CRD, *own, name=name, namespace=namespace)
        start(cluster, operators, tmp_path, namespace)
        served = Sdep(cluster.api, namespace)
        served.create()
        served.wait_complete()
    roles = cluster.api.list(
        "/apis/rbac.authorization.k8s.io/v1/clusterroles", "app.kubernetes.io/name=ascend-serving"
    )
    assert roles == []


def test_namespaced_operator_sees_no_other_namespace(
    cluster: Cluster, team: str, plane: ControlPlane
) -> None:
    cluster.install("--set", f"operator.namespaces={{{team}}}")
    token = plane.service_account_token(SYSTEM, OPERATOR)
    own = plane.api_for(token)
    assert own.list(f"/api/v1/namespaces/{team}/pods") == []
    with pytest.raises(Exception, match="403"):
        own.list("/api/v1/namespaces/default/pods")


def test_operator_becomes_available_and_helm_waits_for_it(cluster: Cluster) -> None:
    cluster.install("--wait", "--timeout", "2m")
    assert cluster.deployment()["status"]["availableReplicas"] == 2


def is_test(pod: Body) -> bool:
    return bool(pod["metadata"]["name"] == "ascend-serving-test")


def test_helm_test_runs_its_pod_to_the_end(cluster: Cluster, kubelet: Kubelet) -> None:
    kubelet.order(is_test, Succeeded())
    cluster.install()
    for _ in range(2):
        said = cluster.helm("test", RELEASE, "--namespace", SYSTEM, "--timeout", "2m")
        assert "Phase:          Succeeded" in said


@pytest.mark.parametrize("namespaces", ["", "team"])
def test_commands_of_the_notes_work(
    cluster: Cluster, team: str, operators: list[OperatorProcess], tmp_path: Path, namespaces: str
) -> None:
    words = ("--set", f"operator.namespaces={{{team}}}") if namespaces else ()
    notes = cluster.install(*words).partition("NOTES:\n")[2]
    commands = indented(notes)
    assert all(command.startswith("kubectl ") for command in commands)
    assert len(commands) == 5
    start(cluster, operators, tmp_path)
    run_as_written(cluster, commands, tmp_path)
    assert Sdep(cluster.api, team if namespaces else "default", "trial").read()
    labels = cluster.api.get(f"/api/v1/namespaces/{SYSTEM}")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_commands_of_the_readme_work(cluster: Cluster, kubelet: Kubelet, tmp_path: Path) -> None:
    kubelet.order(is_test, Succeeded())
    commands = indented((CHART / "README.md").read_text())
    assert [command.split()[0] for command in commands] == ["helm", "helm", "kubectl"]
    run_as_written(cluster, commands, tmp_path)
    assert cluster.releases() == [(RELEASE, SYSTEM)]


def test_the_projects_own_readme_installs_it_likewise(cluster: Cluster, tmp_path: Path) -> None:
    commands = indented((ROOT / "README.md").read_text())
    run_as_written(cluster, [one for one in commands if one.startswith("helm ")], tmp_path)
    assert cluster.releases() == [(RELEASE, SYSTEM)]


def indented(text: str) -> list[str]:
    """Return the commands of a text: its indented lines."""
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


def run_as_written(cluster: Cluster, commands: list[str], folder: Path) -> None:
    """Run commands at the root of the project, with the cluster's kubectl and helm."""
    kubectl = Kubectl.of(cluster.plane)
    programs = {
        "kubectl": (*kubectl.command, "--kubeconfig", str(kubectl.kubeconfig)),
        "helm": (str(cluster.helm.binary), "--kubeconfig", str(kubectl.kubeconfig)),
    }
    for name, command in programs.items():
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n')
        program.chmod(0o755)
    ran = subprocess.run(
        ["bash", "-ec", "\n".join((f'PATH="{folder}:$PATH"', *commands))],
        cwd=ROOT,
        env=cluster.helm.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
