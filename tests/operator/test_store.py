from __future__ import annotations

from typing import Any

from serving_operator.store import Store

KEY = ("ns", "qwen")
KINDS = ("Pod", "ServingDeployment")


def pod(
    version: int, *, name: str = "qwen-0", uid: str = "", owner: str = "qwen"
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": uid or f"uid-of-{name}",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "ascend-serving.dev/name": owner,
                "ascend-serving.dev/revision": str(version),
            },
        }
    }


def sdep(version: int) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "qwen",
            "namespace": "ns",
            "uid": "s",
            "resourceVersion": str(version),
        },
        "spec": {},
    }


def revision(store: Store) -> str:
    return store.family(KEY).pods["qwen-0"].revision


def test_object_belongs_to_whom_its_label_names() -> None:
    store = Store()
    assert store.put("Pod", pod(1)) == KEY
    assert list(store.family(KEY).pods) == ["qwen-0"]


def router_pod(version: int, name: str) -> dict[str, Any]:
    body = pod(version, name=name)
    body["metadata"]["labels"]["app.kubernetes.io/component"] = "router"
    return body


def test_routers_pods_are_kept_apart_and_outlive_a_list_of_the_replicas() -> None:
    store = Store()
    store.put("Pod", router_pod(1, "qwen-router-a"))
    store.put("Pod", pod(2))
    store.replace_pods(KEY, dict(store.family(KEY).pods), [])
    assert list(store.family(KEY).routers) == ["qwen-router-a"]
    assert store.family(KEY).pods == {}
    store.drop("Pod", "ns", "qwen-router-a")
    assert store.family(KEY).routers == {}


def test_pod_that_has_a_replicas_name_is_in_its_way_whatever_it_is_labelled() -> None:
    store = Store()
    store.put("Pod", router_pod(1, "qwen-0"))
    assert list(store.family(KEY).pods) == ["qwen-0"]


def test_object_without_our_label_is_nobodys() -> None:
    store = Store()
    assert store.put("Pod", pod(1, owner="")) is None
    assert store.family(KEY).pods == {}


def test_late_event_does_not_undo_a_newer_answer() -> None:
    store = Store()
    store.put("Pod", pod(5))
    store.put("Pod", pod(4))
    assert revision(store) == "5"


def test_event_of_a_predecessor_does_not_undo_its_successor() -> None:
    store = Store()
    store.put("Pod", pod(5, uid="new"))
    store.put("Pod", pod(4, uid="old"))
    assert revision(store) == "5"


def test_deletion_of_a_predecessor_leaves_its_successor() -> None:
    store = Store()
    store.put("Pod", pod(5, uid="new"))
    store.drop("Pod", "ns", "qwen-0", uid="old")
    assert revision(store) == "5"


def test_deployment_is_present_from_its_event_to_its_deletion() -> None:
    store = Store()
    store.put("ServingDeployment", sdep(1))
    assert store.present() == [KEY]
    store.drop("ServingDeployment", "ns", "qwen")
    assert store.present() == []


def test_list_of_pods_is_the_whole_truth() -> None:
    store = Store()
    for name in ("qwen-0", "qwen-1"):
        store.put("Pod", pod(1, name=name))
    before = dict(store.family(KEY).pods)
    store.replace_pods(KEY, before, [pod(2, name="qwen-1")])
    assert list(store.family(KEY).pods) == ["qwen-1"]


def test_refresh_drops_ghosts() -> None:
    store = Store()
    store.put("Pod", pod(1))
    store.begin_refresh()
    store.end_refresh(KINDS, listed=set())
    assert store.family(KEY).pods == {}


def test_refresh_keeps_what_came_while_it_was_read() -> None:
    store = Store()
    store.begin_refresh()
    store.put("Pod", pod(9))
    store.end_refresh(KINDS, listed=set())
    assert revision(store) == "9"


def test_refresh_does_not_bring_back_what_was_deleted_while_it_was_read() -> None:
    store = Store()
    store.put("Pod", pod(1))
    store.begin_refresh()
    store.drop("Pod", "ns", "qwen-0")
    store.put("Pod", pod(1))
    store.drop("Pod", "ns", "qwen-0")
    store.end_refresh(KINDS, listed={("Pod", "ns", "qwen-0")})
    assert store.family(KEY).pods == {}


def test_kind_that_could_not_be_listed_is_left_as_it_was() -> None:
    store = Store()
    store.put("Pod", pod(1))
    store.begin_refresh()
    store.end_refresh(("ServingDeployment",), listed=set())
    assert revision(store) == "1"
