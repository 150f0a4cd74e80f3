"""The chart in the cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tests.charts.helm import CHART, RELEASE, SYSTEM, Helm
from tests.cluster.api import Body
from tests.cluster.real_cluster import RealCluster
from tests.contract.custom_resource import CRDS

_OPERATOR: Final = f"system:serviceaccount:{SYSTEM}:ascend-serving-operator"
_CRD: Final = f"{CRDS}/servingdeployments.ascend-serving.dev"


class Installation:
    """A release of the chart and the helm that made it."""

    def __init__(self, helm: Helm, cluster: RealCluster) -> None:
        self.cluster = cluster
        self._helm = helm.of(cluster.kubeconfig)
        self._audited = 0

    def install(self) -> str:
        """Install the chart into a namespace that enforces `restricted`, and wait for it.

        The CRD that every cluster of the tests has makes way for the chart's own.
        """
        self.cluster.api.delete(_CRD)
        self.cluster.api.wait(lambda: not self.cluster.api.exists(_CRD) or None, "no CRD is left")
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        body = {"metadata": {"name": SYSTEM, "labels": labels}}
        self.cluster.api.create("/api/v1/namespaces", body)
        return self.reinstall()

    def reinstall(self) -> str:
        """Install the chart into the namespace that is there."""
        return self.run("install", RELEASE, CHART, "--wait", "--timeout", "3m")

    def uninstall(self) -> None:
        """Uninstall the chart; what is refused to an operator that loses its rights is in order."""
        assert self.refusals() == []
        self.run("uninstall", RELEASE, "--wait")
        self.cluster.api.wait(lambda: not self.operators() or None, "no operator is left")
        self._audited = len(self._audit_lines())

    def upgrade(self, *settings: str) -> str:
        """Upgrade the release with other values, and wait for it."""
        return self.run("upgrade", RELEASE, CHART, *settings, "--wait", "--timeout", "3m")

    def refusals(self) -> list[str]:
        """What the API server refused the operator for want of a right.

        In a namespace that is being deleted nobody may create anything; that is no want of a right.
        """
        refused = []
        for line in self._audit_lines()[self._audited :]:
            entry = json.loads(line)
            status = entry.get("responseStatus", {})
            if entry["user"].get("username") == _OPERATOR and status.get("code") == 403:
                refused.append(f"{entry['verb']} {entry['requestURI']}: {status.get('message')}")
        return [words for words in refused if "being terminated" not in words]

    def operators(self) -> list[Body]:
        """The operator's pods."""
        selector = "app.kubernetes.io/component=operator"
        return self.cluster.api.list(f"/api/v1/namespaces/{SYSTEM}/pods", selector)

    def _audit_lines(self) -> list[str]:
        return self.cluster.audit_log.read_text().splitlines()

    def run(self, *words: str | Path) -> str:
        """Run helm in the release's namespace and return what it prints."""
        return self._helm(*words, "--namespace", SYSTEM)
