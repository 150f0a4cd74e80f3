"""The images of the test cluster's own programs, each of one static program in Go."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Final

from tests.cluster.go_program import GoProgram
from tests.cluster.image_archive import write_image

PAUSE: Final = GoProgram(
    name="pause", folder=Path(__file__).parent / "pause", title="the program that holds pods"
)
ECHO: Final = GoProgram(
    name="echo", folder=Path(__file__).parent / "echo", title="the program of test pods"
)
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def image_name(program: GoProgram) -> str:
    """Return the name of a program's image."""
    return f"docker.io/local/{program.name}:1"


def static_image(program: GoProgram, cache: Path) -> Path:
    """Return the archive of a program's image, made if need be."""
    binary = program.built(cache)
    archive = binary.with_suffix(".tar")
    machine = platform.machine()
    if not archive.exists():
        write_image(
            archive,
            name=image_name(program),
            program=binary,
            architecture=_ARCHITECTURES.get(machine, machine),
        )
    return archive
