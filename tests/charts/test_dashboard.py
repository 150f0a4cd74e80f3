from __future__ import annotations

import json
import re
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from tests.charts.helm import CHART, Helm
from tests.manifests.documents import only

from serving_operator.metrics import Metrics as OperatorMetrics
from serving_router.load_table import LoadTable
from serving_router.metrics import Metrics as RouterMetrics
from serving_runtime.load import Load
from serving_runtime.metrics import ReplicaMetrics

Body = dict[str, Any]

TEXT = (CHART / "files" / "dashboard.json").read_text()
DASHBOARD: Body = json.loads(TEXT)
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


def existing() -> set[str]:
    """Return the names of every time series of the three components."""
    replica = ReplicaMetrics()
    replica.observe_load(lambda: LOAD, lambda: 0)
    expositions = (
        OperatorMetrics(lambda: 0, lambda: True).exposition(),
        RouterMetrics(LoadTable()).exposition(),
        replica.exposition(),
    )
    return {
        family.name + suffix
        for text in expositions
        for family in text_string_to_metric_families(text.decode())
        for suffix in SUFFIXES[family.type]
        if not family.name.endswith("_created")
    }


LOAD = Load()


def asked() -> set[str]:
    return set(re.findall(r"\bascend_serving_[a-z0-9_]+", TEXT))


def test_dashboard_asks_for_nothing_that_nobody_reports() -> None:
    assert asked() - existing() == set()


def test_dashboard_shows_every_metric() -> None:
    def stem(name: str) -> str:
        return re.sub(r"_(bucket|count|sum)$", "", name)

    assert {stem(name) for name in existing()} - {stem(name) for name in asked()} == set()


def test_autoscalers_ask_for_a_metric_of_replicas(helm: Helm) -> None:
    for kind in ("hpa", "keda"):
        objects = helm.template(
            f"examples.autoscaling.{kind}.enabled=true",
            "examples.autoscaling.servingDeployment=qwen",
        )
        (scaler,) = (one for one in objects if "scaleTargetRef" in one.get("spec", {}))
        names = set(re.findall(r"\bascend_serving_[a-z0-9_]+", json.dumps(scaler)))
        assert names == {"ascend_serving_pending_tokens"} <= existing()


def test_panels_do_not_overlap_and_have_a_query_each() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or all(target["expr"] for target in panel["targets"])
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_config_map_holds_the_dashboard_unchanged(helm: Helm) -> None:
    config = only(helm.template("dashboards.enabled=true"), "ConfigMap")
    assert json.loads(config["data"]["ascend-serving.json"]) == DASHBOARD
