from __future__ import annotations

import pytest
import yaml

from serving_contract.deployment import Policy, ServingDeployment, is_vnpu, parse_deployment
from serving_contract.errors import InvalidDeployment

SMALLEST = """
apiVersion: ascend-serving.dev/v1alpha1
kind: ServingDeployment
metadata: {name: qwen3-14b}
spec:
  model: {uri: "pvc://weights/Qwen3-14B"}
"""

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

REFUSED = {
    "uri of no known form": ("model: {uri: weights}", "spec.model.uri: must be /abs/path"),
    "uri that climbs out": ("model: {uri: pvc://w/../x}", "spec.model.uri: must be"),
    "no model": ("paused: true", "spec.model: Field required"),
    "dp above 512": ("parallelism: {dataParallelSize: 513}", "dataParallelSize: Input should be"),
    "negative dp": ("parallelism: {dataParallelSize: -1}", "dataParallelSize: Input should be"),
    "tp of zero": ("parallelism: {tensorParallelSize: 0}", "tensorParallelSize: Input should be"),
    "tp above 64": ("parallelism: {tensorParallelSize: 65}", "tensorParallelSize: Input should be"),
    "number as a string": ("parallelism: {dataParallelSize: '2'}", "valid integer"),
    "both rollout budgets 0": (
        "rollout: {maxSurge: 0%, maxUnavailable: 0}",
        "spec.rollout: maxUnavailable and maxSurge must not both be 0",
    ),
    "percentage above 100": ("rollout: {maxSurge: 101%}", "rollout.maxSurge: must be an integer"),
    "fractional surge": ("rollout: {maxSurge: 1.5}", "rollout.maxSurge: must be an integer"),
    "vNPU with tp 2": (
        "devices: {resourceName: huawei.com/Ascend910-2c}\n  parallelism: {tensorParallelSize: 2}",
        "parallelism.tensorParallelSize must be 1",
    ),
    "secret without a hub": ("model: {uri: /m, secretName: s}", "secretName is for a uri"),
    "custom without image": ("engine: {kind: Custom}", "engine.image is required"),
    "unknown engine": ("engine: {kind: TGI}", "spec.engine.kind: Input should be"),
    "memory fraction of 0": ("engine: {deviceMemoryFraction: '0.0'}", "decimal string above 0"),
    "memory fraction above 1": ("engine: {deviceMemoryFraction: '1.5'}", "at most 1"),
    "affinity without header": ("router: {sessionAffinity: {}}", "sessionAffinity.header"),
    "port 0": ("router: {service: {port: 0}}", "router.service.port: Input should be"),
    "unknown field": ("engin: {}", "spec.engin: unknown field"),
    "unknown nested field": ("engine: {replicas: 2}", "spec.engine.replicas: unknown field"),
}


def test_model_uri_is_the_only_required_field_and_the_rest_has_the_promised_defaults() -> None:
    spec = parse_deployment(SMALLEST).spec
    dumped = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert dumped == yaml.safe_load(DEFAULTS)


def test_served_name_is_the_objects_name_unless_given() -> None:
    assert parse_deployment(SMALLEST).served_name == "qwen3-14b"
    named = SMALLEST.replace("Qwen3-14B", "Qwen3-14B").replace("uri:", "servedName: q, uri:")
    assert parse_deployment(named).served_name == "q"


@pytest.mark.parametrize(("field", "complaint"), REFUSED.values(), ids=REFUSED.keys())
def test_refusal_names_the_field(field: str, complaint: str) -> None:
    model = "" if field.startswith(("model:", "paused:")) else "  model: {uri: /m}\n"
    text = SMALLEST.partition("  model:")[0] + model + "  " + field
    with pytest.raises(InvalidDeployment) as caught:
        parse_deployment(text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["1a", "a" * 51, "A", "a_b", "-a", "a-", ""])
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
    text = yaml.safe_dump(_with_spec({"template": template}))
    assert parse_deployment(text).spec.template == template


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


def _with_spec(extra: dict[str, object]) -> dict[str, object]:
    whole: dict[str, object] = yaml.safe_load(SMALLEST)
    spec = whole["spec"]
    assert isinstance(spec, dict)
    whole["spec"] = {**spec, **extra}
    return whole


def _target(described: dict[str, str], types: dict[str, dict[str, str]]) -> dict[str, str]:
    return types.get(described.get("$ref", "").rpartition("/")[2], {})
