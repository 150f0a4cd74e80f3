"""The ServingDeployment in the shared control plane."""

from __future__ import annotations

import pytest
from tests.cluster.api import Api, Body
from tests.cluster.cluster import Cluster
from tests.contract.custom_resource import Kubectl, deployments, install_crd

from serving_contract.crd import definition


@pytest.fixture(scope="session")
def crd(api: Api) -> Body:
    """The CRD as the API server holds it."""
    return install_crd(api, definition())


@pytest.fixture
def path(crd: Body, namespace: str) -> str:
    """Where the ServingDeployments of a new namespace are."""
    return deployments(namespace)


@pytest.fixture
def kubectl(control_plane: Cluster, crd: Body) -> Kubectl:
    return Kubectl.of(control_plane)
