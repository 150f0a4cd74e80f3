from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    "flags", [(), ("--namespace", "a", "--all-namespaces")], ids=["neither", "both"]
)
def test_scope_of_an_operator_has_to_be_said(cli: Cli, flags: tuple[str, ...]) -> None:
    code, _, err = cli("operator", *flags)
    assert (code, err.count("\n")) == (2, 1)
    assert "either --namespace NS (repeatable) or --all-namespaces is needed" in err


def test_operator_without_a_cluster_says_so(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none")
    )
    code, _, err = cli("operator", "--all-namespaces")
    assert (code, err.count("\n")) == (2, 1)
    assert "set KUBECONFIG or run in a pod" in err
