"""One real cluster for all of these tests, with the chart in it, as a user would have it.

The nodes are real: kubelet, containerd, runc, pods from the project's own images. Every namespace
enforces Pod Security `restricted`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.charts.helm import Helm
from tests.cluster.helm import helm
from tests.cluster.nodes import missing_for_nodes
from tests.cluster.real_cluster import RealCluster
from tests.contract.custom_resource import Kubectl
from tests.e2e.figures import FIGURES, Figures
from tests.e2e.installation import Installation
from tests.e2e.served import Served, make_weights
from tests.images.archive import retag
from tests.images.build import TARGETS, build, image_name, missing_for_images

from serving_cli import tiny_model

_HERE: Final = Path(__file__).parent
NEXT: Final = "next"
_TIMEOUT_S: Final = 900
"""Of one test: the first also waits for the cluster and for its images to be unpacked."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give these tests the time that real pods need, and none to a machine that has no nodes."""
    missing = missing_for_nodes() or missing_for_images()
    for item in items:
        if _HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.timeout(_TIMEOUT_S))
        if missing:
            item.add_marker(pytest.mark.skip(reason=missing))
    # One cluster at a time: what runs clusters of its own goes before the shared one is there.
    items.sort(
        key=lambda item: isinstance(item, pytest.Function) and "cluster" in item.fixturenames
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured."""
    if FIGURES.rows:
        terminalreporter.section("measured")
    for what, value in FIGURES.rows:
        terminalreporter.write_line(f"{what}: {value}")


@pytest.fixture(scope="session")
def figures() -> Figures:
    return FIGURES


@pytest.fixture(scope="session")
def archives() -> dict[str, Path]:
    """The images of this version, by target."""
    return build(TARGETS)


@pytest.fixture(scope="session")
def cluster(
    archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    started = RealCluster.start(folder, archives=list(archives.values()))
    yield started
    started.stop()


@pytest.fixture(scope="session")
def next_images(cluster: RealCluster, archives: dict[str, Path]) -> dict[str, str]:
    """Images that differ from this version's in their label and name, on every node, by target."""
    for target in ("router", "engine-cpu"):
        cluster.add_image(retag(archives[target], NEXT))
    return {target: image_name(target, NEXT) for target in ("router", "engine-cpu")}


@pytest.fixture(scope="session")
def kubectl(cluster: RealCluster) -> Kubectl:
    return Kubectl.of(cluster)


@pytest.fixture(scope="session")
def installation(
    cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """The chart, installed once as its README says."""
    installed = Installation(Helm(helm(os.environ), tmp_path_factory.mktemp("helm")), cluster)
    installed.install()
    yield installed
    # Of all that these tests had it do.
    assert installed.refusals() == []


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the tiny model, readable by every user."""
    folder = tmp_path_factory.mktemp("weights")
    tiny_model.run(folder / "tiny")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _namespace(cluster: RealCluster, weights: Path) -> Iterator[str]:
    name = f"e2e-{secrets.token_hex(3)}"
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"metadata": {"name": name, "labels": restricted}}
    cluster.api.create("/api/v1/namespaces", body)
    make_weights(cluster.api, name, str(weights))
    yield name
    cluster.api.delete(f"/api/v1/namespaces/{name}")
    cluster.api.delete(f"/api/v1/persistentvolumes/weights-{name}")


real_namespace = pytest.fixture(_namespace)
module_namespace = pytest.fixture(scope="module")(_namespace)


@pytest.fixture
def served(installation: Installation, real_namespace: str) -> Served:
    """A name for a ServingDeployment in a namespace of the test's own; not created yet."""
    return Served(installation.cluster.api, real_namespace, "qwen")
