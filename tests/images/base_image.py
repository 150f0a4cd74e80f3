"""The base image, made on this machine: Debian's Python under the name that the Dockerfile uses.

There need be no registry, and the Dockerfile stays as its users have it. The packages are Debian's
of that day; the list of them is the key.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.cluster.errors import ClusterUnavailable
from tests.cluster.progress import say
from tests.images.buildah import Buildah
from tests.images.content import hash_of

NAME: Final = "docker.io/library/python:3.11-slim"
_SUITE: Final = "bookworm"
_PACKAGES: Final = ("ca-certificates", "python3", "python3-pip", "python3-venv")
_DEBOOTSTRAP: Final = ("debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}")
# What the official image lacks as well.
_TRIMMED: Final = (
    "usr/lib/python3.11/EXTERNALLY-MANAGED",
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt/archives",
    "var/lib/apt/lists",
)
_DOCKERFILE: Final = """\
FROM scratch
ADD rootfs.tar /
ENV LANG=C.UTF-8
LABEL org.opencontainers.image.title="a local stand-in for python:3.11-slim"
CMD ["python3"]
"""
KEY: Final = hash_of((_SUITE, *_PACKAGES, *_TRIMMED, _DOCKERFILE))


def ensure_base(buildah: Buildah) -> None:
    """See that the store has the base image.

    Raises:
        ClusterUnavailable: if it cannot be made.
    """
    named = f"localhost/base:{KEY}"
    if buildah.has(named) and buildah.has(NAME):
        return
    context = buildah.folder / f"base-{KEY}"
    if not (context / "rootfs.tar").exists():
        _make(context)
    (context / "Dockerfile").write_text(_DOCKERFILE)
    buildah.build(context, name=NAME, dockerfile=context / "Dockerfile")
    buildah.tag(NAME, named)


def _make(context: Path) -> None:
    say("making the base image with debootstrap (about a minute, once)")
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    rootfs = context / "rootfs"
    try:
        _run(
            [*_DEBOOTSTRAP, _SUITE, str(rootfs)],
            context / "debootstrap.log",
        )
        _trim(rootfs)
        unfinished = context / "rootfs.tar.new"
        _run(
            ["tar", "-C", str(rootfs), "--numeric-owner", "-cf", str(unfinished), "."],
            context / "tar.log",
        )
        unfinished.rename(context / "rootfs.tar")
    finally:
        shutil.rmtree(rootfs, ignore_errors=True)


def _trim(rootfs: Path) -> None:
    for name in _TRIMMED:
        path = rootfs / name
        if path.is_dir():
            shutil.rmtree(path)
            path.mkdir()
        else:
            path.unlink(missing_ok=True)
    python = rootfs / "usr/bin/python"
    python.unlink(missing_ok=True)
    os.symlink("python3", python)


def _run(command: list[str], log: Path) -> None:
    with log.open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        lines = log.read_text(errors="replace").splitlines()
        raise ClusterUnavailable(
            f"{command[0]} cannot make the base image: {lines[-1] if lines else 'it said nothing'} "
            f"(all of it: {log})"
        )
