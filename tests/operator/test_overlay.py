from __future__ import annotations

from typing import Any

import pytest

from serving_operator.errors import TemplateInvalid
from serving_operator.overlay import lay_over

OURS: dict[str, object] = {
    "metadata": {"labels": {"ascend-serving.dev/name": "qwen"}},
    "spec": {
        "restartPolicy": "Always",
        "tolerations": [{"key": "ours"}],
        "containers": [
            {
                "name": "engine",
                "image": "ours",
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "ports": [{"name": "http", "containerPort": 8000}],
                "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
                "readinessProbe": {"httpGet": {"path": "/ready"}, "periodSeconds": 2},
                "resources": {"limits": {"npu": "4"}, "requests": {"memory": "8Gi"}},
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    },
}


def laid(template: dict[str, Any]) -> Any:
    protected = [("env", "A"), ("resources", "limits", "npu"), ("resources", "requests", "npu")]
    return lay_over(OURS, template, container="engine", protected=protected)


def engine(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "engine", **fields}]}}


def laid_engine(**fields: Any) -> Any:
    return laid(engine(**fields))["spec"]["containers"][0]


def test_empty_template_changes_nothing() -> None:
    assert laid({}) == OURS


def test_maps_merge_by_key() -> None:
    merged = laid({"metadata": {"labels": {"team": "x"}}, "spec": {"nodeSelector": {"a": "b"}}})
    assert merged["metadata"]["labels"] == {"ascend-serving.dev/name": "qwen", "team": "x"}
    assert merged["spec"]["nodeSelector"] == {"a": "b"}
    assert merged["spec"]["restartPolicy"] == "Always"


def test_containers_merge_by_name_and_new_ones_follow() -> None:
    theirs = {
        "spec": {"containers": [{"name": "side", "image": "s"}, {"name": "engine", "tty": True}]}
    }
    names = [container["name"] for container in laid(theirs)["spec"]["containers"]]
    assert names == ["engine", "side"]
    assert laid(theirs)["spec"]["containers"][0]["image"] == "ours"


def test_variable_replaces_ours_whole() -> None:
    source = {"fieldRef": {"fieldPath": "status.podIP"}}
    merged = laid_engine(env=[{"name": "B", "valueFrom": source}, {"name": "C", "value": "3"}])
    assert merged["env"] == [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": source},
        {"name": "C", "value": "3"},
    ]


def test_volume_replaces_ours_whole_and_mounts_merge_by_path() -> None:
    host = {"name": "tmp", "hostPath": {"path": "/x"}}
    assert laid({"spec": {"volumes": [host]}})["spec"]["volumes"] == [host]
    merged = laid_engine(volumeMounts=[{"name": "other", "mountPath": "/tmp"}])
    assert merged["volumeMounts"] == [{"name": "other", "mountPath": "/tmp"}]


def test_probe_replaces_ours_whole_and_an_empty_one_removes_it() -> None:
    theirs = {"exec": {"command": ["true"]}}
    assert laid_engine(readinessProbe=theirs)["readinessProbe"] == theirs
    assert "readinessProbe" not in laid_engine(readinessProbe={})


def test_post_start_keeps_our_pre_stop() -> None:
    merged = laid_engine(lifecycle={"postStart": {"exec": {"command": ["x"]}}})
    assert set(merged["lifecycle"]) == {"preStop", "postStart"}


def test_other_lists_replace() -> None:
    assert laid({"spec": {"tolerations": [{"key": "x"}]}})["spec"]["tolerations"] == [{"key": "x"}]
    assert laid_engine(command=["a"])["command"] == ["a"]


def test_null_deletes_a_key() -> None:
    assert "tolerations" not in laid({"spec": {"tolerations": None}})["spec"]


def test_unknown_fields_survive() -> None:
    assert laid({"spec": {"newThing": {"a": [1, None]}}})["spec"]["newThing"] == {"a": [1, None]}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "grace": ({"spec": {"terminationGracePeriodSeconds": 5}}, "spec.terminationGracePeriodSeconds"),
    "restart policy": ({"spec": {"restartPolicy": "Always"}}, "spec.restartPolicy"),
    "node": ({"spec": {"nodeName": "n"}}, "spec.nodeName"),
    "name": ({"metadata": {"name": "n"}}, "metadata.name"),
    "namespace": ({"metadata": {"namespace": "n"}}, "metadata.namespace"),
    "owners": ({"metadata": {"ownerReferences": []}}, "metadata.ownerReferences"),
    "finalizers": ({"metadata": {"finalizers": ["x/y"]}}, "metadata.finalizers"),
    "label of ours": (
        {"metadata": {"labels": {"ascend-serving.dev/revision": "x"}}},
        "metadata.labels.ascend-serving.dev/revision",
    ),
    "app label": (
        {"metadata": {"labels": {"app.kubernetes.io/part-of": "x"}}},
        "metadata.labels.app.kubernetes.io/part-of",
    ),
    "all labels": ({"metadata": {"labels": None}}, "metadata.labels"),
    "preStop": (engine(lifecycle={"preStop": {}}), "engine.lifecycle.preStop"),
    "lifecycle": (engine(lifecycle=None), "engine.lifecycle.preStop"),
    "port": (engine(ports=[{"name": "http", "containerPort": 1}]), "engine.ports.http"),
    "devices": (engine(resources={"limits": {"npu": "1"}}), "engine.resources.limits.npu"),
    "device requests": (engine(resources={"requests": {"npu": 1}}), "resources.requests.npu"),
    "resources": (engine(resources=None), "engine.resources"),
    "variable": (engine(env=[{"name": "A", "value": "2"}]), "engine.env.A"),
    "visible devices": (
        engine(env=[{"name": "ASCEND_RT_VISIBLE_DEVICES", "value": "0"}]),
        "engine.env.ASCEND_RT_VISIBLE_DEVICES",
    ),
    "visible devices elsewhere": (
        {"spec": {"initContainers": [{"name": "i", "env": [{"name": "ASCEND_VISIBLE_DEVICES"}]}]}},
        "spec.initContainers.i.env.ASCEND_VISIBLE_DEVICES",
    ),
    "directive": ({"spec": {"containers": [{"$patch": "replace"}]}}, "$patch"),
    "containers deleted": ({"spec": {"containers": None}}, "spec.containers"),
    "spec no map": ({"spec": 1}, "template.spec: must be a map"),
    "containers no list": (
        {"spec": {"containers": {}}},
        "template.spec.containers: must be a list",
    ),
    "container no map": (
        {"spec": {"containers": [1]}},
        "template.spec.containers[0]: must be a map",
    ),
    "container without name": ({"spec": {"containers": [{}]}}, "containers[0].name: is missing"),
}


@pytest.mark.parametrize(("template", "path"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_the_operators_is_refused_by_its_path(template: dict[str, Any], path: str) -> None:
    with pytest.raises(TemplateInvalid) as caught:
        laid(template)
    assert path in str(caught.value)


def test_port_of_another_container_may_be_called_http() -> None:
    side = {"name": "side", "ports": [{"name": "http", "containerPort": 1}]}
    assert laid({"spec": {"containers": [side]}})["spec"]["containers"][1] == side


def test_depth_of_a_template_does_not_matter() -> None:
    deep: Any = {}
    for _ in range(20_000):
        deep = {"a": deep}
    assert laid({"spec": {"deep": deep}})["spec"]["deep"] is not None
