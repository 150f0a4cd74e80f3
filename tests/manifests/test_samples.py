from __future__ import annotations

from pathlib import Path

import pytest
from tests.cluster.api import Api
from tests.contract.custom_resource import DRY_RUN, STRICT
from tests.images.content import project_version
from tests.manifests.documents import SAMPLES, Body, read

from serving_contract.deployment import EngineKind, Spec, read_deployment_object
from serving_contract.kubernetes import KIND
from serving_operator.preview import objects_of
from serving_operator.settings import Defaults, Images

PROMISED = [
    "autoscaling",
    "cpu-trial",
    "custom-engine",
    "hostpath-driver",
    "pypto-serving",
    "qwen3-ascend910",
    "vllm-ascend",
]
DEPLOYMENTS = [sample for sample in SAMPLES if sample.stem != "autoscaling"]
PRIVILEGED = {
    "hostpath-driver": "privileged",
    "pypto-serving": "baseline",
    "vllm-ascend": "baseline",
}
"""What Pod Security must allow for a sample, as the sample says; else `restricted`."""

by_name = pytest.mark.parametrize("sample", DEPLOYMENTS, ids=lambda path: path.stem)


def body_of(sample: Path) -> Body:
    (body,) = read(sample.read_text())
    return body


def spec_of(name: str) -> Spec:
    (sample,) = (path for path in DEPLOYMENTS if path.stem == name)
    return read_deployment_object(body_of(sample)).spec


def test_samples_are_the_promised_ones() -> None:
    assert [sample.stem for sample in SAMPLES] == PROMISED


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_sample_is_accepted_by_the_api_server(
    api: Api, crd: Body, namespace: str, sample: Path
) -> None:
    body = body_of(sample)
    api.patch(api.path_of(body, namespace), body, "apply", DRY_RUN)


@by_name
def test_sample_is_read_by_the_operator(sample: Path) -> None:
    assert body_of(sample)["kind"] == KIND
    read_deployment_object(body_of(sample))


@by_name
def test_what_the_operator_makes_of_a_sample_is_accepted_as_its_comment_says(
    api: Api, crd: Body, namespace: str, sample: Path
) -> None:
    level = PRIVILEGED.get(sample.stem, "restricted")
    assert (
        level == "restricted" or f"pod-security.kubernetes.io/enforce={level}" in sample.read_text()
    )
    labels = {"pod-security.kubernetes.io/enforce": level}
    api.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": labels}})
    body = body_of(sample)
    body["metadata"]["namespace"] = namespace
    owner = api.create(api.path_of(body).rpartition("/")[0], body, STRICT)
    defaults = Defaults(images=Images.of_version(project_version()))
    for child in objects_of(read_deployment_object(owner), defaults):
        assert isinstance(child, dict)
        api.create(api.path_of(child).rpartition("/")[0], child, DRY_RUN)


def test_samples_show_every_engine() -> None:
    shown = {read_deployment_object(body_of(sample)).spec.engine.kind for sample in DEPLOYMENTS}
    assert shown == set(EngineKind)


def test_ascend_sample_asks_for_two_replicas_of_four_devices() -> None:
    spec = spec_of("qwen3-ascend910")
    assert (spec.parallelism.data_parallel_size, spec.parallelism.tensor_parallel_size) == (2, 4)
    assert spec.devices.resource_name == "huawei.com/Ascend910"
    assert spec.engine.kind is EngineKind.ASCEND_SERVING


def test_driver_is_mounted_at_the_hosts_own_paths() -> None:
    template = spec_of("hostpath-driver").template
    assert template is not None
    pod: Body = template["spec"]  # type: ignore[assignment]
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"]}
    (engine,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in engine["volumeMounts"]}
    assert paths == mounts
    assert set(paths.values()) == {
        "/usr/local/Ascend/driver",
        "/usr/local/dcmi",
        "/usr/local/bin/npu-smi",
        "/etc/ascend_install.info",
    }


def test_autoscaler_is_of_the_ascend_sample() -> None:
    (autoscaler,) = (sample for sample in SAMPLES if sample.stem == "autoscaling")
    (sample,) = (sample for sample in SAMPLES if sample.stem == "qwen3-ascend910")
    target = body_of(autoscaler)["spec"]["scaleTargetRef"]
    wanted = body_of(sample)
    assert target == {
        "apiVersion": wanted["apiVersion"],
        "kind": wanted["kind"],
        "name": wanted["metadata"]["name"],
    }
