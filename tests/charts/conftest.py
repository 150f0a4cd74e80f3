"""The chart, and the helm that renders and installs it."""

from __future__ import annotations

import contextlib
import os
from typing import Final

import pytest
from tests.charts.helm import Helm
from tests.cluster.errors import ClusterUnavailable
from tests.cluster.helm import helm as built_helm

_NEEDING_HELM: Final = "helm"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have helm built before any test's time limit counts; the fixture says why it cannot be."""
    chosen = (item for item in session.items if isinstance(item, pytest.Function))
    if session.config.option.collectonly or not any(
        _NEEDING_HELM in item.fixturenames for item in chosen
    ):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), contextlib.suppress(ClusterUnavailable):
        built_helm(os.environ)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """A helm without a cluster."""
    try:
        return Helm(built_helm(os.environ), tmp_path_factory.mktemp("helm"))
    except ClusterUnavailable as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
