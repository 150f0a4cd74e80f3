"""Every object that the operator would create for a ServingDeployment, by its own code."""

from __future__ import annotations

from typing import Final

from serving_contract.deployment import ServingDeployment
from serving_operator.body import Body
from serving_operator.children import all_meant
from serving_operator.observed import Observed
from serving_operator.resources.replica import replica_pod
from serving_operator.revision import revision_of
from serving_operator.settings import Defaults
from serving_operator.subject import Subject

UNKNOWN_UID: Final = "00000000-0000-0000-0000-000000000000"
"""Stands for the uid that the API server will give the ServingDeployment."""


def objects_of(deployment: ServingDeployment, defaults: Defaults) -> list[Body]:
    """Return the children, pods last.

    Raises:
        TemplateInvalid: a template may not say what it says.
    """
    subject = Subject(
        name=deployment.metadata.name,
        namespace=deployment.metadata.namespace,
        uid=UNKNOWN_UID,
        generation=1,
        resource_version="",
        spec=deployment.spec,
        served_name=deployment.served_name,
        revision=revision_of(deployment.spec),
    )
    meant = all_meant(subject, defaults, Observed(), with_router=True)
    pods = [replica_pod(subject, index, defaults.images) for index in range(subject.dp)]
    return [*(one.body for one in meant), *pods]
