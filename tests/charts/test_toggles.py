"""Each toggle on the API server; stand-ins play the kinds that other projects define."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.charts.helm import Helm, annotations_of
from tests.charts.stand_ins import SCALED_OBJECT, SERVICE_MONITOR, install_stand_in
from tests.cluster.api import Api
from tests.contract.custom_resource import DRY_RUN, STRICT
from tests.manifests.documents import MANIFESTS, Body, kinds, only

from serving_contract.deployment import read_deployment_object
from serving_contract.kubernetes import KIND, LABEL_NAME, PORT_NAME, REPLICA, ROUTER
from serving_operator.preview import objects_of
from serving_operator.settings import Defaults, Images

SCALED = "examples.autoscaling.servingDeployment=qwen"
TOGGLES = {
    "defaults": (),
    "namespaces": ("operator.namespaces={NAMESPACE}",),
    "without CRD": ("crds.install=false",),
    "one replica": ("operator.replicas=1",),
    "places": (
        "operator.nodeSelector.pool=system",
        "operator.tolerations[0].operator=Exists",
        "operator.affinity.podAntiAffinity."
        "requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey=kubernetes.io/hostname",
        "operator.podLabels.team=a",
        "operator.podAnnotations.note=b",
        "images.pullSecrets={registry}",
    ),
    "service monitors": ("metrics.serviceMonitor.enabled=true",),
    "labelled service monitors": (
        "metrics.serviceMonitor.enabled=true",
        "metrics.serviceMonitor.labels.release=prometheus",
        "operator.namespaces={NAMESPACE}",
    ),
    "network policy": ("networkPolicy.enabled=true",),
    "dashboards": ("dashboards.enabled=true",),
    "HPA": ("examples.autoscaling.hpa.enabled=true", SCALED),
    "KEDA": ("examples.autoscaling.keda.enabled=true", SCALED),
    "test of a deployment": ("test.servingDeployment=qwen",),
}


@pytest.fixture(scope="session")
def foreign_kinds(api: Api) -> None:
    install_stand_in(api, SERVICE_MONITOR)
    install_stand_in(api, SCALED_OBJECT)


@pytest.mark.usefixtures("foreign_kinds")
@pytest.mark.parametrize("settings", TOGGLES.values(), ids=TOGGLES)
def test_api_server_takes_every_object_of_a_toggle(
    helm: Helm, api: Api, namespace: str, settings: tuple[str, ...]
) -> None:
    strict = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": strict}})
    chosen = [setting.replace("NAMESPACE", namespace) for setting in settings]
    for one in helm.template(*chosen, namespace=namespace):
        tried = api.patch(api.path_of(one), one, "apply", DRY_RUN)
        assert tried["metadata"]["name"] == one["metadata"]["name"]


def test_pods_of_the_chart_are_admitted_under_the_strictest_pod_security(
    helm: Helm, api: Api, namespace: str
) -> None:
    strict = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": strict}})
    objects = helm.template(namespace=namespace)
    account = only(objects, "ServiceAccount")
    api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", account, STRICT)
    operator = only(objects, "Deployment")["spec"]["template"]
    operator["metadata"]["name"] = "operator"
    for pod in (operator, only(objects, "Pod")):
        api.create(f"/api/v1/namespaces/{namespace}/pods", pod, DRY_RUN)


def children() -> list[Any]:
    owner = {
        "apiVersion": "ascend-serving.dev/v1alpha1",
        "kind": KIND,
        "metadata": {"name": "qwen", "namespace": "default", "uid": "u"},
        "spec": {"model": {"uri": "/models/tiny"}},
    }
    return list(objects_of(read_deployment_object(owner), Defaults(images=Images.of_version("1"))))


@pytest.mark.parametrize("component", [ROUTER, REPLICA])
def test_service_monitors_find_the_services_of_a_deployment(helm: Helm, component: str) -> None:
    objects = helm.template("metrics.serviceMonitor.enabled=true")
    monitor = only_named(objects, "ServiceMonitor", f"ascend-serving-{component}")["spec"]
    services = [child for child in children() if child["kind"] == "Service"]
    wanted = monitor["selector"]["matchLabels"].items()
    (found,) = (one for one in services if wanted <= one["metadata"]["labels"].items())
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in found["spec"]["ports"]} == {PORT_NAME}
    (relabeling,) = endpoint["relabelings"]
    meta = "__meta_kubernetes_service_label_" + LABEL_NAME.translate(str.maketrans("./-", "___"))
    assert relabeling == {"sourceLabels": [meta], "targetLabel": "servingdeployment"}


def test_service_monitor_finds_the_operator(helm: Helm) -> None:
    objects = helm.template("metrics.serviceMonitor.enabled=true", namespace="elsewhere")
    monitor = only_named(objects, "ServiceMonitor", "ascend-serving-operator")["spec"]
    service = only(objects, "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["namespaceSelector"] == {"matchNames": ["elsewhere"]}
    assert (
        service["spec"]["selector"]
        == only(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    )


def only_named(objects: list[Body], kind: str, name: str) -> Body:
    return only([one for one in objects if one["metadata"]["name"] == name], kind)


def test_service_monitors_look_where_the_operator_serves(helm: Helm) -> None:
    setting = "metrics.serviceMonitor.enabled=true"
    everywhere = only_named(helm.template(setting), "ServiceMonitor", "ascend-serving-router")
    assert everywhere["spec"]["namespaceSelector"] == {"any": True}
    objects = helm.template(setting, "operator.namespaces={a,b}")
    some = only_named(objects, "ServiceMonitor", "ascend-serving-router")
    assert some["spec"]["namespaceSelector"] == {"matchNames": ["a", "b"]}


def test_labels_of_users_win_on_service_monitors(helm: Helm) -> None:
    objects = helm.template(
        "metrics.serviceMonitor.enabled=true",
        "metrics.serviceMonitor.labels.release=prometheus",
        r"metrics.serviceMonitor.labels.app\.kubernetes\.io/instance=prometheus",
    )
    monitors = [one for one in objects if one["kind"] == "ServiceMonitor"]
    assert len(monitors) == 3
    for one in monitors:
        labels = one["metadata"]["labels"]
        assert labels["release"] == labels["app.kubernetes.io/instance"] == "prometheus"
        wanted = one["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= labels.items()


COMPONENTS = {
    "Pod": ("test", "test.servingDeployment=qwen"),
    "ConfigMap": ("dashboard", "dashboards.enabled=true"),
    "HorizontalPodAutoscaler": ("autoscaler", "examples.autoscaling.hpa.enabled=true"),
    "ScaledObject": ("autoscaler", "examples.autoscaling.keda.enabled=true"),
}


@pytest.mark.parametrize("kind", COMPONENTS)
def test_objects_that_are_not_the_operators_say_so(helm: Helm, kind: str) -> None:
    component, setting = COMPONENTS[kind]
    metadata = only(helm.template(setting, SCALED), kind)["metadata"]
    assert metadata["labels"]["app.kubernetes.io/component"] == component


def test_toggles_are_off_by_default(helm: Helm) -> None:
    extras = {"ServiceMonitor", "NetworkPolicy", "ConfigMap", "HorizontalPodAutoscaler"}
    assert not (extras | {"ScaledObject"}) & kinds(helm.template())


@pytest.mark.parametrize("kind", ["hpa", "keda"])
def test_autoscaler_is_of_the_named_deployment(helm: Helm, kind: str) -> None:
    objects = helm.template(
        f"examples.autoscaling.{kind}.enabled=true",
        SCALED,
        "examples.autoscaling.namespace=models",
        "examples.autoscaling.maxReplicas=8",
    )
    (scaler,) = (one for one in objects if "scaleTargetRef" in one.get("spec", {}))
    assert scaler["metadata"]["namespace"] == "models"
    assert scaler["spec"]["scaleTargetRef"]["name"] == "qwen"
    assert 8 in scaler["spec"].values()
    assert "32768" in str(scaler["spec"])


def test_hpa_is_the_samples(helm: Helm) -> None:
    sample = yaml.safe_load((MANIFESTS / "samples" / "autoscaling.yaml").read_text())
    objects = helm.template(
        "examples.autoscaling.hpa.enabled=true",
        f"examples.autoscaling.servingDeployment={sample['metadata']['name']}",
    )
    assert only(objects, "HorizontalPodAutoscaler")["spec"] == sample["spec"]


def test_dashboard_bears_the_label_that_grafana_looks_for(helm: Helm) -> None:
    config = only(helm.template("dashboards.enabled=true"), "ConfigMap")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert not annotations_of(config)


def test_names_that_look_like_numbers_stay_names(helm: Helm) -> None:
    objects = helm.template(
        "metrics.serviceMonitor.enabled=true",
        "examples.autoscaling.keda.enabled=true",
        "networkPolicy.enabled=true",
        "dashboards.enabled=true",
        namespace="2026",
        options=(
            *("--set-string", "examples.autoscaling.servingDeployment=1e3"),
            *("--set-string", "operator.namespaces={7}"),
            *("--set-string", "images.pullSecrets={8}"),
            *("--set-string", "operator.priorityClassName=9"),
        ),
    )
    names = [text for one in objects for text in named_texts(one)]
    assert {"2026", "1e3", "7", "8", "9"} <= set(names)
    assert all(isinstance(name, str) for name in names)


def named_texts(value: Any) -> list[Any]:
    """Return every value of a key that holds a name, however deep."""
    if isinstance(value, list):
        return [text for part in value for text in named_texts(part)]
    if not isinstance(value, dict):
        return []
    here = [value[word] for word in ("name", "namespace", "priorityClassName") if word in value]
    here += value.get("matchNames", [])
    return [text for text in here if not isinstance(text, dict)] + [
        text for part in value.values() for text in named_texts(part)
    ]
