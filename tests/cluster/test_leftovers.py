"""The removal of what a cluster has left goes on after a step that fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cluster import leftovers
from tests.cluster.leftovers import Leftovers


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Leftovers:
    """A record of a folder and of settings, of a machine that has nothing else of a cluster."""
    for name in leftovers.SETTINGS:
        (tmp_path / "proc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc" / name).write_text("0\n")
    monkeypatch.setattr(leftovers, "_PROC", tmp_path / "proc")
    for step in ("remove_groups", "remove_links"):
        monkeypatch.setattr(leftovers, step, lambda prefix: None)
    monkeypatch.setattr(leftovers, "remove_rule", lambda: None)
    (tmp_path / "state").mkdir()
    made = Leftovers(tmp_path / "record.json")
    made.write_down(prefix="none-", folders=[tmp_path / "state"])
    (tmp_path / "proc" / "kernel" / "panic").write_text("10\n")
    return made


def test_every_step_is_tried_and_the_record_stays_for_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: Leftovers
) -> None:
    def busy(prefix: str) -> None:
        raise TimeoutError(f"processes do not leave {prefix}")

    with monkeypatch.context() as patched:
        patched.setattr(leftovers, "remove_groups", busy)
        with pytest.raises(TimeoutError):
            recorded.remove()
    assert not (tmp_path / "state").exists()
    assert (tmp_path / "proc" / "kernel" / "panic").read_text() == "0"
    assert (tmp_path / "record.json").exists()
    recorded.remove()
    assert not (tmp_path / "record.json").exists()
