"""One ServingDeployment as a reconcile sees it: what is wanted, and the status written last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from pydantic import ValidationError

from serving_contract.deployment import Spec, read_deployment_object
from serving_contract.status import Condition, Status
from serving_operator import naming
from serving_operator.body import Body, fields, number, text
from serving_operator.revision import revision_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A ServingDeployment.

    Attributes:
        served_name: name in the OpenAI API.
        revision: of the spec as it is now.
    """

    name: str
    namespace: str
    uid: str
    generation: int
    resource_version: str
    spec: Spec
    served_name: str
    revision: str
    status: Status = field(default_factory=Status)

    @classmethod
    def of(cls, body: Mapping[str, object]) -> Self:
        """Read the object.

        Raises:
            InvalidDeployment: the spec cannot be understood.
        """
        deployment = read_deployment_object(body)
        return cls(
            name=deployment.metadata.name,
            namespace=deployment.metadata.namespace,
            uid=text(body, "metadata", "uid"),
            generation=number(body, "metadata", "generation"),
            resource_version=text(body, "metadata", "resourceVersion"),
            spec=deployment.spec,
            served_name=deployment.served_name,
            revision=revision_of(deployment.spec),
            status=read_status(body),
        )

    @classmethod
    def unreadable(cls, body: Mapping[str, object]) -> Self:
        """Return as much of an object as its status needs; its spec means nothing."""
        return cls(
            name=text(body, "metadata", "name"),
            namespace=text(body, "metadata", "namespace"),
            uid=text(body, "metadata", "uid"),
            generation=number(body, "metadata", "generation"),
            resource_version=text(body, "metadata", "resourceVersion"),
            spec=Spec.model_validate({"model": {"uri": "/unreadable"}}),
            served_name="",
            revision="",
        )

    @property
    def dp(self) -> int:
        """Number of replicas that the spec asks for."""
        return self.spec.parallelism.data_parallel_size

    @property
    def tp(self) -> int:
        """Devices of one replica."""
        return self.spec.parallelism.tensor_parallel_size

    def condition(self, kind: str) -> Condition | None:
        """Return a condition as it was written last."""
        return next((one for one in self.status.conditions if one.type == kind), None)

    def metadata(self, name: str, component: str, **more: object) -> Body:
        """Return the metadata of a child."""
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": naming.labels(self.name, component),
            "ownerReferences": [naming.owner_reference(self.name, self.uid)],
            **more,
        }


def read_status(body: Mapping[str, object]) -> Status:
    """Return the status; one that cannot be read counts as none, since it is derived."""
    try:
        return Status.model_validate(dict(fields(body, "status")))
    except ValidationError:
        return Status()
