"""The project's images, built from its Dockerfile and kept as archives for the test cluster.

An archive is kept under the hash of all that goes into it: with nothing changed it is only looked
up. Whatever takes longer says so.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tests.cluster.binary import cache_folder
from tests.cluster.progress import say
from tests.images import base_image, stand_in
from tests.images.base_image import ensure_base
from tests.images.buildah import LENT, Buildah
from tests.images.content import ROOT, content_key, project_version
from tests.images.stand_in import ensure_stand_in

TARGETS: Final = ("operator", "router", "engine-cpu")
NPU: Final = "engine-npu"
"""Built like the others, but on a stand-in: no machine of the tests can have a CANN image."""

_NEEDED: Final = ("buildah", "debootstrap", "unshare")
_INDEX: Final = "PIP_INDEX_URL"
_KEPT: Final = 2
_EXPECTED: Final = {"engine-cpu": " (5 GB of torch: about 5 minutes, once)"}


def missing_for_images() -> str | None:
    """Return what this machine lacks to build images, with the cure; None if nothing."""
    if os.geteuid() != 0:
        return "building the images needs root: run as root, or in a container that has it"
    if missing := [program for program in _NEEDED if shutil.which(program) is None]:
        return f"building the images needs {', '.join(missing)}: run `make e2e-deps` as root"
    return None


def image_name(target: str, tag: str | None = None) -> str:
    """Return the full name of a target's image, as a container runtime knows it."""
    return f"docker.io/ascend-serving/{target}:{tag or project_version()}"


def build(targets: Iterable[str]) -> dict[str, Path]:
    """Return the archive of each target, building those that are not there yet.

    Raises:
        ClusterUnavailable: if one cannot be built.
    """
    folder = cache_folder(os.environ) / "image-builds"
    found = {target: folder / "archives" / f"{target}-{_key(target)}.tar" for target in targets}
    if any(not path.exists() for path in found.values()):
        with Buildah.opened(folder) as buildah:
            buildah.bound()
            for target, path in found.items():
                if not path.exists():
                    _build(buildah, target, path)
    for target, path in found.items():
        os.utime(path)
        _remove_old(path.parent, target)
    return found


def _build(buildah: Buildah, target: str, path: Path) -> None:
    say(f"building the image {image_name(target)}{_EXPECTED.get(target, '')}")
    started = time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    ensure_base(buildah)
    if target == NPU:
        ensure_stand_in(buildah)
    arguments = _arguments(target)
    if index := os.environ.get(_INDEX):  # where packages come from, not what they are
        arguments = {**arguments, _INDEX: index}
    buildah.build(
        ROOT,
        name=image_name(target),
        dockerfile=ROOT / "Dockerfile",
        target=target,
        arguments=arguments,
        lent=LENT,
    )
    built = time.monotonic()
    buildah.archive(image_name(target), path)
    say(f"built in {built - started:.0f} s, archived in {time.monotonic() - built:.0f} s: {path}")


def _arguments(target: str) -> Mapping[str, str]:
    base = {"NPU_BASE": stand_in.NAME} if target == NPU else {}
    return {"VERSION": project_version(), **base}


def _key(target: str) -> str:
    return content_key(base_image.KEY, _arguments(target))


def _remove_old(folder: Path, target: str) -> None:
    archives = [
        path for path in folder.glob(f"{target}-*.tar") if not path.name.endswith(".retagged.tar")
    ]
    archives.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for old in archives[_KEPT:]:
        for path in folder.glob(f"{old.stem}*"):
            path.unlink()
