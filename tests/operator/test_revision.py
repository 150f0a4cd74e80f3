"""Golden hashes: a change here replaces every replica of every user at the next upgrade."""

from __future__ import annotations

from typing import Any

import pytest
from tests.operator.cluster_model import subject_of

GOLDEN: dict[str, tuple[dict[str, Any], str]] = {
    "smallest": ({}, "e0eb82edde"),
    "claim and tp": (
        {"model": {"uri": "pvc://weights/Qwen3-14B"}, "parallelism": {"tensorParallelSize": 4}},
        "4ad020c181",
    ),
    "engine": (
        {"engine": {"kind": "VLLM", "image": "v:1", "maxModelLen": 4096, "args": ["--x"]}},
        "5c78c2e79e",
    ),
    "template": ({"template": {"metadata": {"annotations": {"release": "ä"}}}}, "2c428bd7f2"),
    "cpu": ({"devices": {"resourceName": "cpu"}}, "ed52c84508"),
}


@pytest.mark.parametrize(("spec", "revision"), GOLDEN.values(), ids=GOLDEN.keys())
def test_revision_stays_what_it_was(spec: dict[str, Any], revision: str) -> None:
    assert subject_of(spec).revision == revision


SAME: dict[str, dict[str, Any]] = {
    "number of replicas": {"parallelism": {"dataParallelSize": 9}},
    "router": {"router": {"policy": "RoundRobin", "template": {"spec": {}}}},
    "rollout": {"rollout": {"drainTimeoutSeconds": 1}},
    "node lost": {"nodeLost": {"policy": "ForceDelete"}},
    "paused": {"paused": True},
    "defaults spelled out": {"engine": {"maxNumSeqs": 256, "args": []}, "template": {}},
}


@pytest.mark.parametrize("spec", SAME.values(), ids=SAME.keys())
def test_nothing_else_makes_a_new_one(spec: dict[str, Any]) -> None:
    assert subject_of(spec).revision == subject_of({}).revision
