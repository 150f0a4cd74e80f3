"""What goes into the images, as one hash: archives are kept under it and found again by it.

`.dockerignore` lists what a build may see. The same list is read here, so that nothing can go into
an image and be missing from the hash.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_ALLOWED: Final = "!"
_BYTE_CODE: Final = "__pycache__"


def project_version() -> str:
    """Return the version that the images are tagged with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def content_key(base_key: str, arguments: Mapping[str, str]) -> str:
    """Return the hash of everything that an image is made of.

    Args:
        base_key: that of the base image.
        arguments: of the build.
    """
    words = [base_key, *(f"{name}={value}" for name, value in sorted(arguments.items()))]
    return hash_of(words, _sources())


def hash_of(words: Iterable[str], files: Iterable[Path] = ()) -> str:
    """Return the short hash of words and of files, whose names count too."""
    digest = hashlib.sha256()
    for word in words:
        digest.update(word.encode() + b"\0")
    for file in files:
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _sources() -> Iterator[Path]:
    ignore = ROOT / ".dockerignore"
    yield ignore
    yield ROOT / "Dockerfile"
    for line in ignore.read_text().splitlines():
        if line.startswith(_ALLOWED):
            yield from _files(ROOT / line.removeprefix(_ALLOWED))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(
        file for file in path.rglob("*") if file.is_file() and _BYTE_CODE not in file.parts
    )
