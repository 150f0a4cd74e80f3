from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.charts.helm import CHART, Helm, HelmRefused
from tests.manifests.documents import only

Schema = dict[str, Any]

SCHEMA: Schema = json.loads((CHART / "values.schema.json").read_text())
VALUES: Schema = yaml.safe_load((CHART / "values.yaml").read_text())
SCALED = "examples.autoscaling.servingDeployment=qwen"
OPEN = {"properties/global"}
OF_A_WHOLE = {("global",), ("enabled",)}
"""What a chart that this one is a part of sets; not read here."""

TYPOS = {
    "top": ("operatr.replicas=3", "operatr"),
    "second": ("operator.replica=3", "replica"),
    "third": ("metrics.serviceMonitor.enable=true", "enable"),
    "fourth": ("examples.autoscaling.hpa.on=true", "on"),
    "of a list": ("operator.tolerations[0].keys=npu", "keys"),
    "in capitals": ("images.engineCpu=mine", "engineCpu"),
    "of a Kubernetes field": ("operator.resources.limit.memory=1Gi", "limit"),
    "of an affinity": ("operator.affinity.nodAffinity.x=1", "nodAffinity"),
}
WRONG = {
    "a word for a number": ("operator.replicas=two", "/operator/replicas"),
    "a word for a switch": ("crds.install=maybe", "/crds/install"),
    "one namespace for a list": ("operator.namespaces=a", "/operator/namespaces"),
    "a name that is none": ("operator.namespaces={Team_A}", "/operator/namespaces/0"),
    "a namespace twice": ("operator.namespaces={a,a}", "/operator/namespaces"),
    "no replica at all": ("examples.autoscaling.minReplicas=0", "/minReplicas"),
    "a port out of range": ("test.port=70000", "/test/port"),
    "an interval without a unit": ("metrics.serviceMonitor.interval=15", "/interval"),
    "an image with a space": ("images.router=a b", "/images/router"),
    "a label of the selector": (
        r"operator.podLabels.app\.kubernetes\.io/component=x",
        "app.kubernetes.io/component",
    ),
    "the component of a monitor": (
        r"metrics.serviceMonitor.labels.app\.kubernetes\.io/component=x",
        "app.kubernetes.io/component",
    ),
    "an example without its deployment": (
        "examples.autoscaling.hpa.enabled=true",
        "examples.autoscaling.servingDeployment is empty",
    ),
    "two autoscalers of one deployment": (
        f"examples.autoscaling.hpa.enabled=true,examples.autoscaling.keda.enabled=true,{SCALED}",
        "enable one",
    ),
    "most below least": (
        f"examples.autoscaling.keda.enabled=true,examples.autoscaling.minReplicas=9,{SCALED}",
        "maxReplicas 4 is below minReplicas 9",
    ),
}


def refusal(helm: Helm, setting: str) -> str:
    with pytest.raises(HelmRefused) as refused:
        helm.template(setting)
    return str(refused.value)


@pytest.mark.parametrize(("setting", "name"), TYPOS.values(), ids=TYPOS)
def test_typo_is_refused_by_name(helm: Helm, setting: str, name: str) -> None:
    assert f"additional properties '{name}' not allowed" in refusal(helm, setting)


@pytest.mark.parametrize(("setting", "words"), WRONG.values(), ids=WRONG)
def test_wrong_value_is_refused_and_named(helm: Helm, setting: str, words: str) -> None:
    assert words in refusal(helm, setting)


def groups(values: Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        yield (*path, name)
        if isinstance(value, dict) and name != "resources":
            yield from groups(value, (*path, name))


@pytest.mark.parametrize("path", list(groups(VALUES)), ids=".".join)
def test_null_is_refused_and_named(helm: Helm, path: tuple[str, ...]) -> None:
    place = "".join(f"/{name}" for name in path[:-1])
    said = refusal(helm, f"{'.'.join(path)}=null")
    assert f"at '{place}': missing property '{path[-1]}'" in said


def test_limits_of_the_operator_can_be_taken_away(helm: Helm) -> None:
    deployment = only(helm.template("operator.resources.limits=null"), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert set(container["resources"]) == {"requests"}


def test_chart_passes_helms_own_check(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART)


def objects_of(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    if schema.get("type") == "object":
        yield path, schema
    for word in ("properties", "definitions"):
        for name, part in schema.get(word, {}).items():
            yield from objects_of(part, f"{path}/{word}/{name}".lstrip("/"))


def test_schema_is_closed_everywhere() -> None:
    left_open = {path for path, part in objects_of(SCHEMA) if "additionalProperties" not in part}
    assert left_open == OPEN


def leaves(values: Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name)


def declared(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, part in schema["properties"].items():
        if "properties" in part and name not in {"resources", "affinity"}:
            yield from declared(part, (*path, name))
        else:
            yield (*path, name)


def test_values_and_schema_name_the_same() -> None:
    defaults = {path if "resources" not in path else path[:2] for path in leaves(VALUES)}
    assert defaults == set(declared(SCHEMA)) - OF_A_WHOLE


def test_every_value_is_promised_in_its_place() -> None:
    promised = {
        *(("images", name) for name in ("operator", "router", "engine", "engineCPU")),
        ("crds", "install"),
        *(("operator", name) for name in ("replicas", "namespaces", "resources")),
        ("metrics", "serviceMonitor", "enabled"),
        ("networkPolicy", "enabled"),
        ("dashboards", "enabled"),
    }
    assert promised <= set(declared(SCHEMA))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A chart of which this one is a part, on a condition."""
    (tmp_path / "charts").mkdir()
    shutil.copytree(CHART, tmp_path / "charts" / "ascend-serving")
    part = "{name: ascend-serving, version: '*', condition: ascend-serving.enabled}"
    (tmp_path / "Chart.yaml").write_text(
        f"{{apiVersion: v2, name: whole, version: 1.0.0, dependencies: [{part}]}}\n"
    )
    (tmp_path / "values.yaml").write_text(
        "global: {region: north}\nascend-serving: {enabled: true, operator: {replicas: 3}}\n"
    )
    return tmp_path


def test_chart_works_as_a_part_of_another(helm: Helm, whole: Path) -> None:
    assert only(helm.template(chart=whole), "Deployment")["spec"]["replicas"] == 3


def test_chart_can_be_left_out_of_another(helm: Helm, whole: Path) -> None:
    assert helm.template("ascend-serving.enabled=false", chart=whole) == []


def test_part_of_another_refuses_null_too(helm: Helm, whole: Path) -> None:
    with pytest.raises(HelmRefused, match="namespaces"):
        helm.template("ascend-serving.operator.namespaces=null", chart=whole)


def test_readme_says_every_group_of_values() -> None:
    readme = (CHART / "README.md").read_text()
    assert set(VALUES) <= set(re.findall(r"`([a-zA-Z]+)", readme))
