"""An operator on a real control plane, with a namespace, an account and a log of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.api import Api
from tests.cluster.cluster import Cluster
from tests.cluster.kubelet import Kubelet
from tests.operator.operator_process import OperatorProcess, grant
from tests.operator.sdep import Sdep

StartOperator = Callable[..., OperatorProcess]


@pytest.fixture(scope="session")
def kubelet_of_session(api: Api) -> Iterator[Kubelet]:
    nodes = ("operator-a", "operator-b")
    with Kubelet(api, nodes=nodes, resources={"huawei.com/Ascend910": "8"}) as kubelet:
        yield kubelet


@pytest.fixture
def kubelet(kubelet_of_session: Kubelet, controllers: None) -> Iterator[Kubelet]:
    yield kubelet_of_session
    kubelet_of_session.release()


@pytest.fixture
def start_operator(
    control_plane: Cluster, api: Api, namespace: str, tmp_path: Path
) -> Iterator[StartOperator]:
    """Start operators of the test's namespace; what is left of them is ended."""
    grant(api, namespace)
    started: list[OperatorProcess] = []

    def start(*flags: str, **options: Any) -> OperatorProcess:
        log = tmp_path / f"operator-{len(started)}.log"
        operator = OperatorProcess(control_plane, namespace, log, *flags, **options)
        started.append(operator)
        return operator.start()

    yield start
    for operator in started:
        operator.end()


@pytest.fixture
def operator(start_operator: StartOperator, kubelet: Kubelet) -> OperatorProcess:
    return start_operator().wait_ready()


@pytest.fixture
def sdep(api: Api, namespace: str) -> Sdep:
    return Sdep(api, namespace)
