from __future__ import annotations

import pytest
import yaml
from tests.contract.specs import (
    ACCEPTED,
    ACCEPTED_NAMES,
    REFUSED,
    REFUSED_NAMES,
    Body,
    deployment,
)

from serving_contract.deployment import (
    EngineKind,
    Policy,
    Router,
    ServingDeployment,
    is_vnpu,
    parse_deployment,
    read_deployment_object,
)
from serving_contract.errors import InvalidDeployment

SMALLEST = """
apiVersion: ascend-serving.dev/v1alpha1
kind: ServingDeployment
metadata: {name: qwen3-14b}
spec:
  model: {uri: "pvc://weights/Qwen3-14B"}
"""
SMALL_PATH = SMALLEST.replace("pvc://weights/Qwen3-14B", "/m")

DEFAULTS = """
model: {uri: "pvc://weights/Qwen3-14B"}
parallelism: {dataParallelSize: 1, tensorParallelSize: 1}
devices: {resourceName: huawei.com/Ascend910}
engine: {kind: AscendServing, dtype: auto, maxNumSeqs: 256, maxNumBatchedTokens: 8192,
         deviceMemoryFraction: "0.9", prefixCaching: true, args: []}
router:
  policy: LeastPendingTokens
  maxPendingTokensPerReplica: 65536
  service: {type: ClusterIP, port: 80, annotations: {}}
rollout: {maxUnavailable: 1, maxSurge: 0, minReadySeconds: 0, progressDeadlineSeconds: 1800,
          drainTimeoutSeconds: 600}
nodeLost: {policy: Wait, afterSeconds: 60}
paused: false
"""

COMPLAINTS = {
    "uri": ("model: {uri: weights}", "spec.model.uri: must be /abs/path"),
    "no model": ("model: null", "spec.model: Field required"),
    "size": ("parallelism: {dataParallelSize: 513}", "less than or equal to 512"),
    "number as a string": ("parallelism: {dataParallelSize: '2'}", "valid integer"),
    "both rollout budgets 0": (
        "rollout: {maxSurge: 0%, maxUnavailable: 0}",
        "spec.rollout: maxUnavailable and maxSurge must not both be 0",
    ),
    "percentage": ("rollout: {maxSurge: 101%}", "rollout.maxSurge: must be an integer from 0 to"),
    "slice": (
        "devices: {resourceName: huawei.com/Ascend910-2c}\nparallelism: {tensorParallelSize: 2}",
        "spec: parallelism.tensorParallelSize must be 1 with a vNPU",
    ),
    "Secret": ("model: {uri: /m, secretName: s}", "spec.model: secretName is for a uri"),
    "image": ("engine: {kind: Custom}", "spec.engine: image is required with kind Custom"),
    "device": ("devices: {resourceName: gpu}", "must be cpu or the full name of an extended"),
    "memory": ("engine: {deviceMemoryFraction: '1.5'}", "a decimal string above 0 and at most 1"),
    "unknown field": ("engine: {replicas: 2}", "spec.engine.replicas: unknown field"),
}


def test_model_uri_is_the_only_required_field_and_the_rest_has_the_promised_defaults() -> None:
    spec = parse_deployment(SMALLEST).spec
    dumped = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert dumped == yaml.safe_load(DEFAULTS)


def test_served_name_is_the_objects_name_unless_given() -> None:
    assert parse_deployment(SMALLEST).served_name == "qwen3-14b"
    named = SMALLEST.replace("uri:", "servedName: q, uri:")
    assert parse_deployment(named).served_name == "q"


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_good_spec_is_accepted(spec: str) -> None:
    parse_deployment(yaml.safe_dump(deployment(spec)))


@pytest.mark.parametrize(("spec", "field"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_spec_is_refused_in_one_line_that_names_the_field(spec: str, field: str) -> None:
    with pytest.raises(InvalidDeployment) as caught:
        parse_deployment(yaml.safe_dump(deployment(spec)))
    assert field.rpartition(".")[2] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("spec", "complaint"), COMPLAINTS.values(), ids=COMPLAINTS.keys())
def test_complaint_says_what_would_be_right(spec: str, complaint: str) -> None:
    with pytest.raises(InvalidDeployment) as caught:
        parse_deployment(yaml.safe_dump(deployment(spec)))
    assert complaint in str(caught.value)


@pytest.mark.parametrize("name", ACCEPTED_NAMES)
def test_name_that_is_a_label_is_accepted(name: str) -> None:
    parse_deployment(SMALLEST.replace("qwen3-14b", name))


@pytest.mark.parametrize("name", [*REFUSED_NAMES, ""])
def test_name_that_is_no_label_is_refused(name: str) -> None:
    with pytest.raises(InvalidDeployment, match=r"metadata.name"):
        parse_deployment(SMALLEST.replace("qwen3-14b", f'"{name}"'))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "not YAML"),
        ("", "holds 0 objects"),
        (SMALLEST + "---" + SMALLEST, "holds 2 objects"),
        ("kind: Pod\napiVersion: v1", "holds v1 Pod"),
    ],
    ids=["broken", "empty", "two", "another kind"],
)
def test_file_that_is_not_one_deployment_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidDeployment, match=complaint):
        parse_deployment(text)


def test_template_is_kept_as_it_is() -> None:
    template = {"spec": {"containers": [{"name": "engine", "anything": {"a": [1, None, 1.5]}}]}}
    text = yaml.safe_dump(deployment(yaml.safe_dump({"template": template})))
    assert parse_deployment(text).spec.template == template


def test_nulls_count_as_absent_and_whole_floats_as_integers() -> None:
    """As the API server stores them."""
    spec = "engine: {image: null, maxNumSeqs: 8.0, kind: null}\nrouter: null"
    read = parse_deployment(yaml.safe_dump(deployment(spec))).spec
    assert (read.engine.image, read.engine.max_num_seqs) == (None, 8)
    assert read.engine.kind is EngineKind.ASCEND_SERVING
    assert read.router == Router()


def test_object_of_a_newer_version_is_read_without_what_it_adds() -> None:
    body = deployment("engine: {speculation: {draft: x}}\npipeline: {size: 2}")
    body |= {"status": {"replicas": 1, "mood": "good"}, "extra": 1}
    body["metadata"] |= {"uid": "u", "generation": 3, "managedFields": [{"manager": "kubectl"}]}
    assert read_deployment_object(body).spec == parse_deployment(SMALL_PATH).spec


def test_object_of_an_older_version_gets_the_defaults_that_it_lacks() -> None:
    body = deployment("rollout: {maxSurge: 1}")
    rollout = read_deployment_object(body).spec.rollout
    assert (rollout.max_surge, rollout.max_unavailable) == (1, 1)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({}, "apiVersion: Field required"),
        (deployment("model: {uri: s3://a}"), "spec.model.uri: must be"),
        (deployment("engine: {kind: Newer}"), "spec.engine.kind: Input should be"),
    ],
    ids=["nothing", "a value that a rule forbids now", "a value of a newer version"],
)
def test_object_that_cannot_be_understood_is_refused_in_one_line(
    body: Body, complaint: str
) -> None:
    with pytest.raises(InvalidDeployment, match=complaint) as caught:
        read_deployment_object(body)
    assert "\n" not in str(caught.value)


def test_policies_are_the_promised_three() -> None:
    assert [policy.value for policy in Policy] == [
        "LeastPendingTokens",
        "LeastRequests",
        "RoundRobin",
    ]


@pytest.mark.parametrize(
    ("resource", "sliced"),
    [
        ("huawei.com/Ascend910", False),
        ("huawei.com/Ascend910-2c", True),
        ("huawei.com/Ascend310P-4c.3cpu", True),
        ("huawei.com/npu-core", True),
        ("nvidia.com/gpu", False),
        ("cpu", False),
    ],
)
def test_slices_of_an_npu_are_known_by_their_name(resource: str, sliced: bool) -> None:
    assert is_vnpu(resource) is sliced


def test_schema_describes_every_field() -> None:
    schema = ServingDeployment.model_json_schema()
    types = schema["$defs"]
    missing = [
        f"{name}.{field}"
        for name, block in types.items()
        if name != "Metadata"
        for field, described in block.get("properties", {}).items()
        if not (described.get("description") or _target(described, types).get("description"))
    ]
    assert missing == []


def _target(described: dict[str, str], types: dict[str, dict[str, str]]) -> dict[str, str]:
    return types.get(described.get("$ref", "").rpartition("/")[2], {})
