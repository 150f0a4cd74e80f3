"""A Service in a real cluster, and who may read its EndpointSlices.

A test writes the slices, unless the Service selects pods: then the cluster's controllers do.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Final

from tests.cluster.api import Api
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ApiRefused
from tests.router.slices import Body, slice_of

SERVICE: Final = "m-replicas"
ROUTER: Final = "m-router"
_RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"


class PublishedService:
    """The Service, its slices, and a ServiceAccount that may watch them and nothing else."""

    def __init__(
        self, cluster: Cluster, namespace: str, *, selector: dict[str, str] | None = None
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.api: Api = cluster.api
        self._slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        self._roles = f"{_RBAC}/namespaces/{namespace}/roles"
        self._bindings = f"{_RBAC}/namespaces/{namespace}/rolebindings"
        core = f"/api/v1/namespaces/{namespace}"
        ports = [{"name": "http", "port": 8000, "targetPort": "http"}]
        spec = {"clusterIP": "None", "ports": ports, "selector": selector}
        self.api.create(f"{core}/services", {"metadata": {"name": SERVICE}, "spec": spec})
        self.api.create(f"{core}/serviceaccounts", {"metadata": {"name": ROUTER}})
        rule = {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["get", "list", "watch"],
        }
        self.api.create(self._roles, {"metadata": {"name": ROUTER}, "rules": [rule]})
        self.allow()

    @property
    def user(self) -> str:
        """The ServiceAccount as the audit log names it."""
        return f"system:serviceaccount:{self.namespace}:{ROUTER}"

    def allow(self) -> None:
        """Give the ServiceAccount its rights."""
        binding = {
            "metadata": {"name": ROUTER},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ROUTER},
            "subjects": [{"kind": "ServiceAccount", "name": ROUTER, "namespace": self.namespace}],
        }
        self.api.create(self._bindings, binding)

    def forbid(self) -> None:
        """Take them away, and wait until that counts."""
        self.api.delete(f"{self._bindings}/{ROUTER}")
        as_router = self.cluster.api_for(self.token())
        self.api.wait(lambda: not _may(as_router, self._slices), "the router may list no more")

    def token(self) -> str:
        """Return a new token of the ServiceAccount."""
        return self.cluster.service_account_token(self.namespace, ROUTER)

    def kubeconfig(self, *, server: str | None = None) -> Path:
        """Return the ServiceAccount's way in."""
        return self.cluster.kubeconfig_for(self.token(), server=server)

    def run_pod(self, name: str, *, node: str) -> Body:
        """Make a pod with the label `app: m` on a node."""
        core = f"/api/v1/namespaces/{self.namespace}"
        account = f"{core}/serviceaccounts/default"
        self.api.wait(lambda: self.api.exists(account), "the namespace's ServiceAccount")
        ports = [{"name": "http", "containerPort": 8000}]
        container = {"name": "engine", "image": "none", "ports": ports}
        spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 1000}
        body = {"metadata": {"name": name, "labels": {"app": "m"}}, "spec": spec}
        return self.api.create(f"{core}/pods", body)

    def publish(self, name: str, *endpoints: Body, **settings: Any) -> None:
        """Write a slice."""
        body = slice_of(name, *endpoints, **settings)
        del body["metadata"]["resourceVersion"]
        self.api.patch(f"{self._slices}/{name}", body, "apply")

    def withdraw(self, name: str) -> None:
        """Delete a slice."""
        self.api.delete(f"{self._slices}/{name}")


def _may(api: Api, path: str) -> bool:
    with contextlib.suppress(ApiRefused):
        api.get(path)
        return True
    return False
