"""A cluster that answers: how to reach it, and as whom."""

from __future__ import annotations

import itertools
import ssl
from pathlib import Path
from typing import Final

from tests.cluster.api import Api
from tests.cluster.kubeconfig import write_kubeconfig

_TOKEN_LIFE_S: Final = 3600


class Cluster:
    """What is common to a control plane of ours and a cluster that was named to us.

    Attributes:
        url: its API server.
        ca: the certificate that clients trust, PEM.
        kubeconfig: an administrator's.
        api: a client with an administrator's rights.
        has_controllers: whether Deployments, garbage collection and scheduling happen.
    """

    def __init__(
        self, *, url: str, ca: str, kubeconfig: Path, api: Api, folder: Path, has_controllers: bool
    ) -> None:
        self.url = url
        self.ca = ca
        self.kubeconfig = kubeconfig
        self.api = api
        self.has_controllers = has_controllers
        self._folder = folder
        self._numbers = itertools.count(1)

    def stop(self) -> None:
        """End what is ours of it."""

    def make_namespace(self, name: str) -> None:
        """Make a namespace that admits pods."""
        self.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        if not self.has_controllers:
            # No pod is admitted without this account, and nobody else makes it.
            account = {"metadata": {"name": "default"}}
            self.api.create(f"/api/v1/namespaces/{name}/serviceaccounts", account)

    def kubeconfig_for(self, token: str, *, server: str | None = None) -> Path:
        """Write a kubeconfig for the bearer of a token, by way of `server` if it is given."""
        path = self._folder / f"kubeconfig-{next(self._numbers)}"
        return write_kubeconfig(path, server=server or self.url, ca=self.ca, token=token)

    def service_account_token(self, namespace: str, name: str) -> str:
        """Return a token of a service account that exists."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": _TOKEN_LIFE_S},
        }
        token: str = self.api.create(path, request)["status"]["token"]
        return token

    def api_for(self, token: str, *, server: str | None = None) -> Api:
        """Return a client for the bearer of a token, by way of `server` if it is given."""
        return Api(server or self.url, ssl.create_default_context(cadata=self.ca), token)
