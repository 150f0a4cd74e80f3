"""An image unpacked from its archive, and programs run in it as a container runtime would.

The root file system is read-only, /tmp is writable, user and environment are the image's, and there
is no network. It is the archive that is looked at, not the store of the build: what nodes get.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.images.archive import Contents

_UNSHARED: Final = (
    "unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child",
    "--propagation", "private",
)  # fmt: skip
# No stage of an image removes a file, so layers only add.
_UNPACK: Final = 'tar -xOf "$1" "$2" | tar -xp --numeric-owner -C "$3"'
# $1 the root, $2 a folder to lend or nothing, $3 user:group; then the environment and the command.
_ENTER: Final = """
set -e; root=$1; lent=$2; user=$3; shift 3
ip link set lo up
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"; mount -t tmpfs tmpfs "$root/tmp"
if [ -n "$lent" ]; then mkdir "$root/tmp/lent"; mount --bind -o ro "$lent" "$root/tmp/lent"; fi
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" "$root" /usr/bin/env -i "$@"
"""
LENT: Final = "/tmp/lent"
_TIMEOUT_S: Final = 240


@dataclass(frozen=True, slots=True)
class Unpacked:
    """An image as files."""

    root: Path
    contents: Contents

    @classmethod
    def of(cls, archive: Path, root: Path) -> Unpacked:
        """Unpack the layers of a docker-archive into a folder, the lowest first."""
        contents = Contents.read(archive)
        root.mkdir()
        for digest in contents.layer_bytes:
            layer = f"{digest.removeprefix('sha256:')}.tar"
            inside = [str(archive), layer, str(root)]
            subprocess.run(["sh", "-c", _UNPACK, "unpack", *inside], check=True)
        return cls(root, contents)

    @property
    def environment(self) -> Mapping[str, str]:
        """What the image sets for its programs."""
        words = self.contents.config["config"]["Env"]
        return dict(word.split("=", 1) for word in words)

    @property
    def user(self) -> str:
        """The user and the group that its programs run as."""
        return str(self.contents.config["config"]["User"])

    def run(self, *command: str, lent: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command instead of the entrypoint, as Kubernetes' `command` does."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        inside = [str(self.root), str(lent or ""), self.user, *variables, *command]
        return subprocess.run(
            [*_UNSHARED, "sh", "-c", _ENTER, "enter", *inside],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )

    def run_entrypoint(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the entrypoint with arguments, as `docker run IMAGE ARGUMENTS` does."""
        entrypoint: Sequence[str] = self.contents.config["config"]["Entrypoint"]
        return self.run(*entrypoint, *arguments)
