from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.cluster.errors import ClusterUnavailable
from tests.cluster.helm import VERSION, helm


def use_go(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> dict[str, str]:
    """Put a program `go` on the PATH and return an environment with an empty cache."""
    go = folder / "go"
    go.write_text(f"#!/bin/sh\n{script}\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return {"XDG_CACHE_HOME": str(folder / "cache")}


def test_two_runs_at_once_build_helm_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = tmp_path / "builds"
    script = f'echo "$@" >> {builds}; mkdir "$GOBIN"; echo binary > "$GOBIN/helm"'
    environment = use_go(tmp_path, monkeypatch, script)
    with ThreadPoolExecutor() as runs:
        first, second = runs.map(helm, [environment, environment])
    assert first == second
    assert first.read_text() == "binary\n"
    (build,) = builds.read_text().splitlines()
    assert build.endswith(f"helm.sh/helm/v3/cmd/helm@{VERSION}")
    assert {path.name for path in first.parent.iterdir()} == {"helm", "lock", "build.log"}


def test_failed_build_of_helm_is_told_with_the_last_words_of_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = use_go(tmp_path, monkeypatch, "echo no route to the module proxy; exit 1")
    with pytest.raises(ClusterUnavailable, match="cannot be built: no route to the module proxy"):
        helm(environment)
