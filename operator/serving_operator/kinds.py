"""The kinds of objects that are watched and written, and their paths in the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from serving_contract.kubernetes import GROUP, KIND, PLURAL, VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind; all of them are namespaced."""

    name: str
    plural: str
    group: str = ""
    version: str = "v1"

    def collection(self, namespace: str | None) -> str:
        """Return the path of all objects, or of those of one namespace."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return (
            f"{root}/{self.plural}"
            if namespace is None
            else f"{root}/namespaces/{namespace}/{self.plural}"
        )

    def object(self, namespace: str, name: str) -> str:
        """Return the path of one object."""
        return f"{self.collection(namespace)}/{name}"


SERVING_DEPLOYMENT: Final = Kind(name=KIND, plural=PLURAL, group=GROUP, version=VERSION)
POD: Final = Kind(name="Pod", plural="pods")
EVENT: Final = Kind(name="Event", plural="events")
LEASE: Final = Kind(name="Lease", plural="leases", group="coordination.k8s.io")
CHILDREN: Final = (
    Kind(name="ServiceAccount", plural="serviceaccounts"),
    Kind(name="Role", plural="roles", group="rbac.authorization.k8s.io"),
    Kind(name="RoleBinding", plural="rolebindings", group="rbac.authorization.k8s.io"),
    Kind(name="Service", plural="services"),
    Kind(name="Deployment", plural="deployments", group="apps"),
    Kind(name="PodDisruptionBudget", plural="poddisruptionbudgets", group="policy"),
    Kind(name="NetworkPolicy", plural="networkpolicies", group="networking.k8s.io"),
)
CHILD_KINDS: Final = {kind.name: kind for kind in CHILDREN}
WATCHED: Final = (SERVING_DEPLOYMENT, POD, *CHILDREN)
