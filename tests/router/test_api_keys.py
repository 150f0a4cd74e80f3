from __future__ import annotations

import logging
from pathlib import Path

import pytest

from serving_http.auth import accepts
from serving_router.api_keys import MountedApiKeys


class Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


def test_each_file_is_a_key_without_its_trailing_newline(tmp_path: Path) -> None:
    (tmp_path / "alice").write_text("sk-1\n")
    (tmp_path / "bob").write_text("sk-2")
    (tmp_path / "empty").write_text("\n")
    assert MountedApiKeys(tmp_path, ["given"]).current() == ("given", "sk-1", "sk-2")


def test_change_is_seen_without_a_restart(tmp_path: Path) -> None:
    (tmp_path / "alice").write_text("old")
    keys = MountedApiKeys(tmp_path, clock=Clock())
    (tmp_path / "alice").write_text("new key")
    (tmp_path / "bob").write_text("another")
    assert keys.current() == ("new key", "another")
    (tmp_path / "bob").unlink()
    assert keys.current() == ("new key",)


def test_folder_that_is_mounted_as_a_secret_is_read(tmp_path: Path) -> None:
    versions = tmp_path / "..2026_01", tmp_path / "..2026_02"
    for number, version in enumerate(versions):
        version.mkdir()
        (version / "alice").write_text(f"sk-{number}")
    (tmp_path / "..data").symlink_to(versions[0].name)
    (tmp_path / "alice").symlink_to("..data/alice")
    keys = MountedApiKeys(tmp_path, clock=Clock())
    assert keys.current() == ("sk-0",)
    (tmp_path / "..next").symlink_to(versions[1].name)
    (tmp_path / "..next").rename(tmp_path / "..data")
    assert keys.current() == ("sk-1",)


def test_empty_folder_lets_nobody_in(tmp_path: Path) -> None:
    keys = MountedApiKeys(tmp_path)
    assert keys.current() == ()
    assert not accepts(keys, b"")
    assert not accepts(keys, b"guess")


def test_key_that_is_removed_from_the_secret_is_valid_no_more(tmp_path: Path) -> None:
    for version, names in (("..1", ("alice", "bob")), ("..2", ("bob",)), ("..3", ())):
        (tmp_path / version).mkdir()
        for name in names:
            (tmp_path / version / name).write_text(f"sk-{name}")
    swap(tmp_path, "..1")
    for name in ("alice", "bob"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    keys = MountedApiKeys(tmp_path, clock=Clock())
    assert keys.current() == ("sk-alice", "sk-bob")
    swap(tmp_path, "..2")
    assert keys.current() == ("sk-bob",)
    swap(tmp_path, "..3")
    assert keys.current() == ()


def swap(folder: Path, version: str) -> None:
    (folder / "..next").symlink_to(version)
    (folder / "..next").rename(folder / "..data")


def test_missing_folder_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        MountedApiKeys(tmp_path / "none")


def test_folder_that_vanishes_leaves_the_keys_valid(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "alice").write_text("sk-1")
    keys = MountedApiKeys(folder, clock=Clock())
    (folder / "alice").unlink()
    folder.rmdir()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert keys.current() == ("sk-1",)
    assert len(caplog.records) == 1


def test_key_of_any_bytes_is_a_key_and_the_others_still_change(tmp_path: Path) -> None:
    (tmp_path / "alice").write_bytes(b"\xff\xfe-key\n")
    keys = MountedApiKeys(tmp_path, clock=Clock())
    assert accepts(keys, b"\xff\xfe-key")
    (tmp_path / "alice").unlink()
    assert not accepts(keys, b"\xff\xfe-key")
