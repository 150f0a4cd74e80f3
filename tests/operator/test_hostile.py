"""ServingDeployments that mean harm, beside one that does not: it must not be made to wait."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.api import Api
from tests.cluster.audit import Audit, Entry
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fixtures import OwnControlPlane
from tests.operator.operator_process import OperatorProcess, grant
from tests.operator.sdep import Sdep

NAMESPACE = "crowd"
ROUNDS = 12
DEEPEST = 9_900
"""The API server takes JSON of 10 000 levels, the object around a template included."""
UNSCHEDULED = {"spec": {"schedulerName": "none"}}


def nested(levels: int, *, in_lists: bool = False) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if in_lists else {"a": value}
    return value


def large_template() -> dict[str, Any]:
    """Return about 120 kB of what the API server accepts."""
    text = "ünïcödé 值 \u202e " + "x" * 40
    env = [{"name": f"HOSTILE_{number}", "value": text} for number in range(1000)]
    annotations = {f"hostile/{number}": "值é" * 50 for number in range(100)}
    containers = [{"name": "engine", "env": env}]
    return {
        "metadata": {"annotations": annotations},
        "spec": {"schedulerName": "none", "containers": containers},
    }


LARGE = {"parallelism": {"dataParallelSize": 512}, "template": large_template()}
REFUSED: dict[str, dict[str, Any]] = {
    "deep-maps": {"template": {"x": nested(DEEPEST)}},
    "deep-lists": {"template": {"metadata": {"annotations": nested(DEEPEST, in_lists=True)}}},
    "deep-router": {"router": {"template": {"spec": nested(DEEPEST)}}},
    "names": {
        "template": {"spec": {"containers": [{"name": "engine", "env": [{"name": "键=值"}]}]}}
    },
    "annotations": {"template": {"metadata": {"annotations": {"a": "值" * 100_000}}}},
}


@pytest.fixture
def deep_json() -> Iterator[None]:
    """Let this process write and read what it asks of the operator."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(30_000)
    yield
    sys.setrecursionlimit(before)


@pytest.fixture
def plane(own_control_plane: OwnControlPlane) -> ControlPlane:
    """One of its own: hundreds of large pods would slow the shared one's other tests."""
    plane = own_control_plane()
    plane.make_namespace(NAMESPACE)
    grant(plane.api, NAMESPACE)
    return plane


@pytest.fixture
def operator(plane: ControlPlane, tmp_path: Path) -> Iterator[OperatorProcess]:
    operator = OperatorProcess(plane, NAMESPACE, tmp_path / "operator.log").start()
    yield operator.wait_ready()
    operator.end()


class Victim:
    """A small ServingDeployment whose owner is impatient."""

    def __init__(self, api: Api, audit: Audit, operator: OperatorProcess) -> None:
        self._audit = audit
        self._operator = operator
        self._sdep = Sdep(api, NAMESPACE, "victim")
        self._size = 1
        self._sdep.create(template=UNSCHEDULED)
        self._wait_size()

    def grow(self) -> timedelta:
        """Ask for one more replica; returns how long the operator took to begin."""
        since = self._audit.mark()
        self._size += 1
        self._sdep.change(parallelism={"dataParallelSize": self._size})
        self._wait_size()
        entries = self._audit.entries(since=since)
        asked = next(e for e in entries if e.resource == "servingdeployments" and e.verb == "patch")
        began = next(e for e in entries if self._is_made(e))
        return datetime.fromisoformat(began.time) - datetime.fromisoformat(asked.time)

    def _is_made(self, entry: Entry) -> bool:
        name = f"victim-{self._size - 1}"
        return entry.user == self._operator.user and (entry.verb, entry.name) == ("create", name)

    def _wait_size(self) -> None:
        self._sdep.wait(lambda: len(self._sdep.pods()) == self._size, f"{self._size} pods")


@pytest.mark.usefixtures("deep_json")
def test_hostile_deployments_make_nobody_else_wait(
    plane: ControlPlane, operator: OperatorProcess
) -> None:
    victim = Victim(plane.api, Audit(plane.api, plane.audit_log), operator)
    quiet = max(victim.grow() for _ in range(3))
    large = Sdep(plane.api, NAMESPACE, "large")
    large.create(**LARGE)
    refused = [Sdep(plane.api, NAMESPACE, name) for name in REFUSED]
    for sdep in refused:
        sdep.create(**REFUSED[sdep.name])
    slowest = max(grow_and_probe(victim, operator) for _ in range(ROUNDS))
    print(f"first write after a change: {quiet} at most, with hostile neighbours {slowest}")
    large.wait(lambda: "large-9" in large.uids(), "the large one goes on")
    assert "large-511" not in large.uids(), "it was over before the measurement"
    for sdep in refused:
        sdep.wait(partial(sdep.condition, "Accepted"), f"a verdict on {sdep.name}")
        assert sdep.condition("Accepted")["status"] == "False"
    grow_and_probe(victim, operator)
    assert operator.process.poll() is None


def grow_and_probe(victim: Victim, operator: OperatorProcess) -> timedelta:
    taken = victim.grow()
    assert operator.probe("/healthz") == 200
    return taken
