"""Images that are imported once for all nodes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.cluster.binary import cache_folder
from tests.cluster.errors import ClusterUnavailable
from tests.cluster.image_archive import Archive, write_image
from tests.cluster.image_store import ImageStore
from tests.cluster.nodes import missing_for_nodes
from tests.cluster.static_images import ECHO, PAUSE, image_name, static_image

needs_containerd = pytest.mark.skipif(
    missing_for_nodes() is not None, reason=str(missing_for_nodes())
)


def blobs(root: Path) -> set[int]:
    folder = root / "io.containerd.content.v1.content" / "blobs" / "sha256"
    return {path.stat().st_ino for path in folder.iterdir()}


@pytest.fixture
def pause() -> Archive:
    return Archive.read(static_image(PAUSE, cache_folder(os.environ)))


@pytest.fixture
def echo() -> Archive:
    return Archive.read(static_image(ECHO, cache_folder(os.environ)))


@needs_containerd
def test_same_archives_are_imported_once(
    tmp_path: Path, pause: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ImageStore(tmp_path)
    assert store.root_with([pause]) == store.root_with([pause])
    assert capsys.readouterr().err.count("importing") == 1


@needs_containerd
def test_added_archive_is_all_that_is_imported(
    tmp_path: Path, pause: Archive, echo: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ImageStore(tmp_path)
    first = store.root_with([pause])
    both = store.root_with([pause, echo])
    assert capsys.readouterr().err.count("importing") == 2
    assert blobs(first) & blobs(both)  # containerd drops what its first import needed only then


@needs_containerd
def test_image_that_is_no_longer_wanted_goes(tmp_path: Path, pause: Archive, echo: Archive) -> None:
    store = ImageStore(tmp_path)
    both = blobs(store.root_with([pause, echo]))
    assert blobs(store.root_with([echo])) < both


@needs_containerd
def test_only_the_newest_two_are_kept(tmp_path: Path, pause: Archive, echo: Archive) -> None:
    store = ImageStore(tmp_path)
    oldest = store.root_with([pause])
    kept = [store.root_with([pause, echo]), store.root_with([echo])]
    assert not oldest.exists()
    assert all(root.exists() for root in kept)


def test_archive_tells_its_images(echo: Archive) -> None:
    assert echo.names == (image_name(ECHO),)


def test_other_program_makes_another_archive(tmp_path: Path) -> None:
    identities = set()
    for content in ("one", "two"):
        program = tmp_path / "program"
        program.write_text(content)
        path = tmp_path / f"{content}.tar"
        write_image(path, name="docker.io/local/x:1", program=program, architecture="amd64")
        identities.add(Archive.read(path).identity)
    assert len(identities) == 2


def test_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("nothing")
    with pytest.raises(ClusterUnavailable, match="text is no image archive"):
        Archive.read(path)
