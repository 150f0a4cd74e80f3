"""The ServingDeployment in the shared control plane."""

from __future__ import annotations

import pytest
from tests.cluster.api import Body
from tests.contract.custom_resource import deployments


@pytest.fixture
def path(crd: Body, namespace: str) -> str:
    """Where the ServingDeployments of a new namespace are."""
    return deployments(namespace)
