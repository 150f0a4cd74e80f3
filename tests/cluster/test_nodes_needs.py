"""What a machine lacks is told before anything is started."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from tests.cluster import nodes
from tests.cluster.cgroups import missing_for_groups
from tests.cluster.nodes import missing_for_disks

ALL = "cpuset cpu io memory pids"


def write_group(root: Path, **files: str) -> None:
    for name, content in files.items():
        (root / f"cgroup.{name}").write_text(content)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, None),
        ({"controllers": ALL, "subtree_control": "", "procs": "1\n"}, None),
        ({"controllers": ALL, "subtree_control": "", "procs": "", "type": "domain"}, None),
        ({"controllers": ALL, "subtree_control": ALL, "procs": "1", "type": "domain"}, None),
        (
            {"controllers": ALL, "subtree_control": "cpu pids", "procs": "1", "type": "domain"},
            "cpuset, memory enabled in",
        ),
        ({"controllers": "cpu memory pids"}, "cpuset in"),
    ],
    ids=["v1", "machine", "empty-container", "enabled", "busy-container", "not-delegated"],
)
def test_controllers_that_cannot_be_enabled_are_told(
    tmp_path: Path, files: dict[str, str], told: str | None
) -> None:
    write_group(tmp_path, **files)
    missing = missing_for_groups(tmp_path)
    if told is None:
        assert missing is None
    else:
        assert missing is not None
        assert told in missing
        assert "\n" not in missing


def set_machine(monkeypatch: pytest.MonkeyPatch, *, file_system: str, free_gib: int) -> None:
    free = shutil.disk_usage("/")._replace(free=free_gib << 30)
    monkeypatch.setattr(nodes, "_file_system", lambda path: file_system)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)


@pytest.mark.parametrize(
    ("file_system", "free_gib", "told"),
    [("xfs", 19, "20 GiB free"), ("nfs", 99, "XDG_CACHE_HOME")],
    ids=["full", "not-local"],
)
def test_disks_that_are_full_or_not_local_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_system: str, free_gib: int, told: str
) -> None:
    set_machine(monkeypatch, file_system=file_system, free_gib=free_gib)
    missing = missing_for_disks(tmp_path / "not" / "yet" / "there")
    assert missing is not None
    assert told in missing


def test_local_disk_with_room_is_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_machine(monkeypatch, file_system="xfs", free_gib=20)
    assert missing_for_disks(tmp_path) is None


def test_images_that_are_there_need_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_machine(monkeypatch, file_system="xfs", free_gib=1)
    held = tmp_path / "node-images" / "large" / "0123" / "archives.json"
    held.parent.mkdir(parents=True)
    held.touch()
    assert missing_for_disks(tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's /proc")
def test_file_system_has_the_name_that_stat_gives_it() -> None:
    assert nodes._file_system(Path("/proc")) == "proc"
