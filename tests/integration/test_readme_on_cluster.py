"""The README's section on Kubernetes, line by line, with the rights that the manifests give.

No image runs here: the operator runs as a process under its own ServiceAccount, and the pods of
the sample become ready on nodes without machines.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.cluster.audit import Audit
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubelet import Kubelet
from tests.contract.custom_resource import Kubectl
from tests.operator.operator_process import ACCOUNT, OperatorProcess

ROOT = Path(__file__).parents[2]
SYSTEM = "ascend-serving-system"


def kubectl_lines() -> list[list[str]]:
    lines = [line.strip() for line in (ROOT / "README.md").read_text().splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("kubectl ")]


def test_kubernetes_section_works_as_written(
    own_control_plane: Callable[..., ControlPlane], tmp_path: Path
) -> None:
    cluster = own_control_plane()
    kubectl = Kubectl.of(cluster)
    install, create, wait = kubectl_lines()
    assert (install[1:3], create[1:3], wait[1]) == (["apply", "-k"], ["apply", "-f"], "wait")
    _run(kubectl, install)
    operator = OperatorProcess(
        cluster, SYSTEM, tmp_path / "operator.log", scope=("--all-namespaces",)
    )
    audit = Audit(cluster.api, cluster.audit_log)
    with Kubelet(cluster.api, nodes=("a", "b")):
        operator.start().wait_ready()
        try:
            _run(kubectl, create)
            _run(kubectl, wait)
        finally:
            assert operator.stop() == 0
    refused = [e for e in audit.entries(user=operator.user) if e.code == 403]
    assert refused == []
    assert operator.user.endswith(ACCOUNT)


def _run(kubectl: Kubectl, words: list[str]) -> None:
    command = [*kubectl.command, "--kubeconfig", str(kubectl.kubeconfig), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_make_cluster_runs_until_it_is_told_to_end(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cluster"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        while "export KUBECONFIG=" not in said:
            line = process.stdout.readline()
            assert line, "it ended"
            said += line
        process.terminate()
        assert process.wait(60) is not None
