from __future__ import annotations

from typing import Any

import pytest

from serving_operator.managed_fields import covers_exactly

PORTS: dict[str, Any] = {
    'k:{"containerPort":8000,"protocol":"TCP"}': {".": {}, "f:containerPort": {}, "f:name": {}}
}

COVERED: dict[str, tuple[dict[str, Any], Any]] = {
    "scalar": ({"f:a": {}}, {"a": 1}),
    "map": ({"f:a": {"f:b": {}, "f:c": {}}}, {"a": {"b": 1, "c": 2}}),
    "atomic map": ({"f:selector": {}}, {"selector": {"a": "b"}}),
    "empty map": ({"f:emptyDir": {}}, {"emptyDir": {}}),
    "list by key": (
        {"f:containers": {'k:{"name":"x"}': {".": {}, "f:name": {}, "f:image": {}}}},
        {"containers": [{"name": "x", "image": "i"}]},
    ),
    "key left to its default": (
        {"f:ports": PORTS},
        {"ports": [{"containerPort": 8000, "name": "http"}]},
    ),
    "set": ({"f:finalizers": {'v:"a"': {}}}, {"finalizers": ["a"]}),
}
DRIFTED: dict[str, tuple[dict[str, Any], Any]] = {
    "taken by another": ({"f:a": {}}, {"a": 1, "b": 2}),
    "not meant any more": ({"f:a": {}, "f:b": {}}, {"a": 1}),
    "element gone": ({"f:containers": {'k:{"name":"x"}': {}}}, {"containers": []}),
    "element more": (
        {"f:containers": {'k:{"name":"x"}': {"f:name": {}}}},
        {"containers": [{"name": "x"}, {"name": "y"}]},
    ),
    "another element": (
        {"f:containers": {'k:{"name":"x"}': {"f:name": {}}}},
        {"containers": [{"name": "y"}]},
    ),
}


@pytest.mark.parametrize(("owned", "meant"), COVERED.values(), ids=COVERED.keys())
def test_what_is_owned_exactly_is_left_alone(owned: dict[str, Any], meant: Any) -> None:
    assert covers_exactly(owned, meant)


@pytest.mark.parametrize(("owned", "meant"), DRIFTED.values(), ids=DRIFTED.keys())
def test_drift_shows_in_ownership(owned: dict[str, Any], meant: Any) -> None:
    assert not covers_exactly(owned, meant)
