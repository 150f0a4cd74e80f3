"""The generated CRD in a real API server, and kubectl as people use it on it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.cluster.api import Api, Body
from tests.cluster.binary import binaries
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ApiRefused

from serving_contract.kubernetes import GROUP, PLURAL, VERSION
from serving_contract.status import Status

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
STRICT = {"fieldValidation": "Strict"}
DRY_RUN = {**STRICT, "dryRun": "All"}


def install_crd(api: Api, crd: Body) -> Body:
    """Apply a CRD, wait until the API server takes objects by it, and return it."""
    spec = crd["spec"]
    path = f"{CRDS}/{crd['metadata']['name']}"
    api.patch(path, crd, "apply")
    served = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
    api.wait(lambda: _is_served(api, served), f"{served} is served")
    return api.get(path)


def _is_served(api: Api, path: str) -> bool:
    """A new kind is not found at first, and for a moment its storage is being made."""
    try:
        api.get(path)
    except ApiRefused as refused:
        if refused.status not in {404, 429}:
            raise
        return False
    return True


def deployments(namespace: str, group: str = GROUP) -> str:
    """Return the path of the ServingDeployments of a namespace."""
    return f"/apis/{group}/{VERSION}/namespaces/{namespace}/{PLURAL}"


def namespace_of(path: str) -> str:
    """Return the namespace in which the ServingDeployments of a path are."""
    return path.split("/")[5]


def written(status: Status) -> Body:
    """Return the patch by which the operator writes a status."""
    return {"status": status.model_dump(mode="json", by_alias=True, exclude_none=True)}


def answer(api: Api, path: str, body: Body) -> int:
    """Return the HTTP status of an attempt to create an object."""
    try:
        api.create(path, body, DRY_RUN)
    except ApiRefused as refused:
        return refused.status
    return 201


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl against one cluster, as its administrator."""

    command: tuple[str, ...]
    kubeconfig: Path

    @classmethod
    def of(cls, cluster: Cluster) -> Self:
        """Return the kubectl that belongs to the cluster's binaries."""
        return cls(tuple(binaries(os.environ).command("kubectl")), cluster.kubeconfig)

    def __call__(self, *words: str | Path, text: str = "") -> str:
        """Run it and return what it prints.

        Raises:
            subprocess.CalledProcessError: it fails; what it said is noted.
        """
        return self._run(words, text).stdout

    def warnings(self, *words: str | Path, text: str = "") -> str:
        """Run it and return what it says beside its answer.

        Raises:
            subprocess.CalledProcessError: it fails; what it said is noted.
        """
        return self._run(words, text).stderr

    def _run(self, words: tuple[str | Path, ...], text: str) -> subprocess.CompletedProcess[str]:
        command = [*self.command, "--kubeconfig", str(self.kubeconfig), *map(str, words)]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        try:
            done.check_returncode()
        except subprocess.CalledProcessError as error:
            error.add_note(done.stderr)
            raise
        return done
