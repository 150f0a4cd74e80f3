"""The test cluster as pytest fixtures: one control plane for all tests, a namespace for each.

A plugin of the root conftest. The binary is built before the first test, so that its minutes
count against no test's time limit.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from tests.cluster.api import Api
from tests.cluster.audit import Audit
from tests.cluster.binary import ASSETS, binaries
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterUnavailable
from tests.cluster.existing import VARIABLE, existing_cluster

OwnControlPlane = Callable[..., ControlPlane]
_NEEDING_BINARIES: Final = {"control_plane", "own_control_plane", "module_control_plane"}
_why_unavailable: Final = pytest.StashKey[str]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have the binaries built, if a test that was chosen needs them."""
    if session.config.option.collectonly or os.environ.get(VARIABLE):
        return
    if not any(_needs_binaries(item) for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            binaries(os.environ)
        except ClusterUnavailable as error:
            session.config.stash[_why_unavailable] = str(error)


def _needs_binaries(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and not _NEEDING_BINARIES.isdisjoint(item.fixturenames)


@contextlib.contextmanager
def _one_clear_line(config: pytest.Config) -> Iterator[None]:
    """Let a test fail with the reason why there is no cluster, not with a traceback."""
    if reason := config.stash.get(_why_unavailable, None):
        pytest.fail(reason, pytrace=False)
    try:
        yield
    except ClusterUnavailable as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture(scope="session")
def control_plane(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """The cluster that all tests share: never break it.

    A ControlPlane, unless the environment names a cluster.
    """
    folder = tmp_path_factory.mktemp("control-plane")
    with _one_clear_line(request.config):
        cluster = existing_cluster(os.environ, folder) or ControlPlane.start(folder)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def api(control_plane: Cluster) -> Api:
    """An administrator's client of the shared cluster."""
    return control_plane.api


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    """A new namespace of the shared cluster, deleted afterwards without waiting."""
    name = f"test-{secrets.token_hex(4)}"
    control_plane.make_namespace(name)
    yield name
    control_plane.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def controllers(control_plane: Cluster) -> None:
    """The test needs Deployments, garbage collection or the scheduler."""
    if not control_plane.has_controllers:
        pytest.skip(f"{ASSETS} has no kube-controller-manager and kube-scheduler; unset it")


@pytest.fixture(scope="session")
def audit(control_plane: Cluster) -> Audit:
    """The audit log of the shared control plane."""
    if not isinstance(control_plane, ControlPlane):
        pytest.skip(f"the audit log of the cluster in {VARIABLE} is not ours to read; unset it")
    return Audit(control_plane.api, control_plane.audit_log)


def _own_control_planes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OwnControlPlane]:
    """Start control planes that may be broken; they end with the fixture's scope."""
    if os.environ.get(VARIABLE):
        pytest.skip(f"the cluster in {VARIABLE} is not ours to break; unset it")
    with contextlib.ExitStack() as stack:

        def start(*, watch_cache: bool = True) -> ControlPlane:
            folder = tmp_path_factory.mktemp("own-control-plane")
            with _one_clear_line(request.config):
                started = ControlPlane.start(folder, watch_cache=watch_cache)
            return stack.enter_context(started)

        yield start


own_control_plane = pytest.fixture(_own_control_planes)
module_control_plane = pytest.fixture(scope="module")(_own_control_planes)
