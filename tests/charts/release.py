"""A release of the chart on a control plane, with the operator that its Deployment describes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import yaml
from tests.charts.helm import CHART, RELEASE, SYSTEM, Helm
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ApiRefused
from tests.contract.custom_resource import CRDS
from tests.manifests.documents import Body
from tests.operator.operator_process import OperatorProcess

from serving_contract.kubernetes import API_VERSION, GROUP, OPERATOR, PLURAL

CRD: Final = f"{CRDS}/{PLURAL}.{GROUP}"
NO_CRD: Final = ("--set", "crds.install=false")


class Cluster:
    """A control plane of its own, and helm for it."""

    def __init__(self, plane: ControlPlane, helm: Helm) -> None:
        self.plane = plane
        self.api = plane.api
        self.helm = helm.of(plane.kubeconfig)

    def install(
        self, *words: str, name: str = RELEASE, namespace: str = SYSTEM, chart: Path = CHART
    ) -> str:
        """Install the chart, wait until its kind is served, and return what helm prints."""
        place = ("--namespace", namespace, "--create-namespace")
        said = self.helm("install", name, chart, *place, *words)
        self.api.wait(self._serves, "ServingDeployments are served")
        return said

    def upgrade(self, *words: str, chart: Path = CHART) -> str:
        """Upgrade the release and return what helm prints."""
        return self.helm("upgrade", RELEASE, chart, "--namespace", SYSTEM, *words)

    def uninstall(self, name: str = RELEASE, namespace: str = SYSTEM) -> str:
        """Uninstall the release and return what helm prints."""
        return self.helm("uninstall", name, "--namespace", namespace, "--wait")

    def releases(self) -> list[tuple[str, str]]:
        """Return name and namespace of every release, failed ones included."""
        found = yaml.safe_load(self.helm("list", "--all", "--all-namespaces", "-o", "yaml"))
        return [(one["name"], one["namespace"]) for one in found]

    def clear(self) -> None:
        """Remove every release, and the CRD with all that is of it."""
        for name, namespace in self.releases():
            self.uninstall(name, namespace)
        try:
            self.api.delete(CRD)
        except ApiRefused as refused:
            if refused.status != 404:
                raise
        self.api.wait(lambda: not self.api.exists(CRD), "the CRD is gone")

    def _serves(self) -> bool:
        try:
            self.api.get(f"/apis/{API_VERSION}/{PLURAL}")
        except ApiRefused as refused:
            if refused.status not in {404, 429}:  # 429 while the storage is being made
                raise
            return False
        return True

    def deployment(self, namespace: str = SYSTEM) -> Body:
        """Return the operator's Deployment as it is."""
        return self.api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{OPERATOR}")

    def operator(self, log: Path, namespace: str = SYSTEM) -> OperatorProcess:
        """Return the process that the Deployment describes, with its account's rights."""
        (container,) = self.deployment(namespace)["spec"]["template"]["spec"]["containers"]
        scope = tuple(arg for arg in container["args"] if not arg.startswith("--log-format"))
        return OperatorProcess(self.plane, namespace, log, scope=scope)


def next_version(folder: Path) -> Path:
    """Return a copy of the chart that says it is a later version."""
    chart = folder / "ascend-serving"
    shutil.copytree(CHART, chart)
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    about |= {"version": "99.0.0", "appVersion": "99.0.0"}
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about))
    return chart
