"""The operator as it runs in its pod: a process with its own ServiceAccount and no other right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

import yaml
from tests.cluster.api import Api
from tests.cluster.cluster import Cluster
from tests.cluster.ports import free_port

ACCOUNT = "ascend-serving-operator"
WAIT_S = 60.0
_MANIFESTS = Path(__file__).parents[2] / "manifests" / "operator"


def grant(api: Api, namespace: str, account: str = ACCOUNT) -> None:
    """Give an account, in one namespace, exactly what the manifests give it in all."""
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    api.create(accounts, {"metadata": {"name": account, "namespace": namespace}})
    for file in ("cluster_role.yaml", "lease_role.yaml"):
        text = (_MANIFESTS / file).read_text().replace(f"name: {ACCOUNT}", f"name: {account}")
        for body in yaml.safe_load_all(text):
            rights = dict(body)
            rights["kind"] = body["kind"].removeprefix("Cluster")
            rights["metadata"] = {**body["metadata"], "namespace": namespace}
            if "roleRef" in rights:
                rights["roleRef"] = {**body["roleRef"], "kind": "Role"}
                rights["subjects"] = [{**body["subjects"][0], "namespace": namespace}]
            plural = rights["kind"].lower() + "s"
            path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/{plural}"
            api.create(path, rights)


class OperatorProcess:
    """One operator that serves one namespace.

    Attributes:
        user: its name in the audit log.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        log: Path,
        *flags: str,
        name: str = "operator-0",
        account: str = ACCOUNT,
        server: str | None = None,
        resync_s: float | None = None,
        scope: tuple[str, ...] = (),
    ) -> None:
        self.user = f"system:serviceaccount:{namespace}:{account}"
        self.log = log
        self.port = free_port()
        self._namespace = namespace
        token = cluster.service_account_token(namespace, account)
        self._environment = os.environ | {
            "KUBECONFIG": str(cluster.kubeconfig_for(token, server=server)),
            "POD_NAME": name,
            "POD_NAMESPACE": namespace,
        }
        entry = ["-m", "serving_cli.entry"]
        if resync_s is not None:
            entry = ["-m", "tests.operator.quick_resync", str(resync_s)]
        self._command = [
            sys.executable, *entry, "operator", *(scope or ("--namespace", namespace)),
            "--host", "127.0.0.1", "--port", str(self.port), "--log-format", "json", *flags,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self) -> Self:
        with self.log.open("a") as output:
            self._process = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=Path(__file__).parents[2],
            )
        return self

    def wait_ready(self) -> Self:
        deadline = time.monotonic() + WAIT_S
        while not self.is_ready():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return self

    def is_ready(self) -> bool:
        return self.probe("/readyz") == 200

    def probe(self, path: str) -> int | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                status: int = answer.status
                return status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return None

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    @property
    def is_leader(self) -> bool:
        try:
            return "operator_is_leader 1.0" in self.metrics()
        except OSError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """End it as the kubelet does; returns its exit code."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        return self.process.wait(WAIT_S)

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


def deployment(name: str = "qwen", **spec: Any) -> dict[str, Any]:
    """Return a small ServingDeployment on CPUs."""
    return {
        "apiVersion": "ascend-serving.dev/v1alpha1",
        "kind": "ServingDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "/models/tiny"},
            "devices": {"resourceName": "cpu"},
            "rollout": {"drainTimeoutSeconds": 1},
            "router": {"replicas": 1},
            **spec,
        },
    }
