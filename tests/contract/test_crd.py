from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import BaseModel, Field

from serving_contract.crd import MAX_BYTES, definition, to_yaml
from serving_contract.status import Condition, ReplicaStatus, Status
from serving_contract.structural import structural_schema

GOLDEN = Path(__file__).parents[2] / "manifests" / "crd" / "servingdeployments.yaml"

Schema = dict[str, Any]


def schema_of(part: str) -> Schema:
    whole: Any = definition()
    schema: Schema = whole["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part]
    return schema


def fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Yield every field below a schema with its path."""
    for name, block in schema.get("properties", {}).items():
        yield f"{path}.{name}", block
        yield from fields(block, f"{path}.{name}")
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[]")


def test_file_in_manifests_is_what_the_models_make() -> None:
    assert GOLDEN.read_text() == to_yaml(), "run `make manifests`"


def test_command_prints_the_same_file_each_time() -> None:
    command = [sys.executable, "-m", "serving_contract.crd"]
    printed = [subprocess.run(command, capture_output=True, check=True).stdout for _ in range(2)]
    assert printed == [to_yaml().encode()] * 2


def test_file_is_small_enough_for_kubectl_apply_to_keep_in_an_annotation() -> None:
    assert len(to_yaml().encode()) < MAX_BYTES // 4


def test_file_repeats_values_instead_of_naming_them() -> None:
    assert "&id" not in to_yaml()


@pytest.mark.parametrize("part", ["spec", "status"])
def test_every_field_is_described(part: str) -> None:
    schema = schema_of(part)
    found = [(part, schema), *fields(schema, part)]
    assert [path for path, block in found if not block.get("description")] == []


def test_description_is_one_paragraph() -> None:
    described = [block["description"] for _, block in fields(schema_of("spec"), "spec")]
    assert [text for text in described if "\n" in text] == []


def test_every_string_that_a_rule_reads_and_every_list_is_bounded() -> None:
    unbounded = [
        path
        for path, block in fields(schema_of("spec"), "spec")
        if (block.get("type") == "string" and not {"enum", "maxLength"} & block.keys())
        or (block.get("type") == "array" and "maxItems" not in block)
        or ("additionalProperties" in block and "maxProperties" not in block)
        or (block.get("type") == "integer" and not {"minimum", "maximum"} <= block.keys())
    ]
    assert unbounded == []


def test_what_the_operator_writes_has_no_defaults() -> None:
    assert [
        path for path, block in fields(schema_of("status"), "status") if "default" in block
    ] == []


def test_status_has_the_promised_fields() -> None:
    replicas = schema_of("status")["properties"]["replicaStatuses"]
    assert list(schema_of("status")["properties"]) == [
        "observedGeneration",
        "ready",
        "replicas",
        "readyReplicas",
        "updatedReplicas",
        "unavailableReplicas",
        "deviceCount",
        "selector",
        "routerReplicas",
        "readyRouterReplicas",
        "url",
        "updateRevision",
        "replicaStatuses",
        "conditions",
    ]
    assert list(replicas["items"]["properties"]) == [
        "index",
        "pod",
        "node",
        "deviceIDs",
        "image",
        "revision",
        "ready",
        "reason",
        "message",
        "failures",
        "retryTime",
        "failedPodUID",
    ]
    assert replicas["x-kubernetes-list-map-keys"] == ["index"]


def test_status_is_written_with_the_names_of_its_schema() -> None:
    condition = Condition(
        type="Available", status="True", last_transition_time="2026-01-01T00:00:00Z", reason="Fine"
    )
    replica = ReplicaStatus(index=0, device_ids="0,1", failed_pod_uid="u", failures=1)
    status = Status(replica_statuses=(replica,), conditions=(condition,))
    written = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert written.keys() == schema_of("status")["properties"].keys()
    assert written["replicaStatuses"][0]["deviceIDs"] == "0,1"
    assert written["replicaStatuses"][0]["failedPodUID"] == "u"
    assert "retryTime" not in written["replicaStatuses"][0]


def test_status_of_a_newer_operator_is_read_without_what_it_adds() -> None:
    assert Status.model_validate({"replicas": 2, "mood": "good"}).replicas == 2


def test_columns_are_the_promised_ones() -> None:
    whole: Any = definition()
    columns = whole["spec"]["versions"][0]["additionalPrinterColumns"]
    assert [column["name"] for column in columns if not column.get("priority")] == [
        "Model",
        "DP",
        "TP",
        "Ready",
        "Available",
        "Degraded",
        "Age",
    ]
    assert [column["name"] for column in columns if column.get("priority")] == [
        "Devices",
        "Resource",
        "URL",
    ]


class Inner(BaseModel):
    """What is inside."""

    size: int = 3
    name: str | None = None
    must: str


class Outer(BaseModel):
    inner: Inner | None = None
    numbers: Annotated[tuple[int, ...], Field(max_length=2)] = ()


def test_null_becomes_absent_and_references_are_inlined() -> None:
    assert structural_schema(Outer)["properties"] == {
        "inner": {
            "description": "What is inside.",
            "type": "object",
            "required": ["must"],
            "properties": {
                "size": {"type": "integer", "default": 3},
                "name": {"type": "string"},
                "must": {"type": "string"},
            },
        },
        "numbers": {
            "type": "array",
            "default": [],
            "maxItems": 2,
            "items": {"type": "integer"},
        },
    }


class Above(BaseModel):
    share: Annotated[float, Field(gt=0)]


def test_keyword_without_a_structural_form_is_not_lost_in_silence() -> None:
    with pytest.raises(AssertionError, match="exclusiveMinimum"):
        structural_schema(Above)


def test_yaml_reads_back_as_the_definition() -> None:
    assert yaml.safe_load(to_yaml()) == definition()
