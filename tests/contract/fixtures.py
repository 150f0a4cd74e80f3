"""The CRD in the shared control plane, and kubectl there, as fixtures of the root conftest."""

from __future__ import annotations

import pytest
from tests.cluster.api import Api, Body
from tests.cluster.cluster import Cluster
from tests.contract.custom_resource import Kubectl, install_crd

from serving_contract.crd import definition


@pytest.fixture(scope="session")
def crd(api: Api) -> Body:
    """The CRD as the API server holds it."""
    return install_crd(api, definition())


@pytest.fixture
def kubectl(control_plane: Cluster, crd: Body) -> Kubectl:
    return Kubectl.of(control_plane)
