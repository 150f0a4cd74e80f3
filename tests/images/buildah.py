"""buildah with a store of its own: nothing of it is seen by, or mixed with, other users of buildah.

Each command runs in a mount namespace that ends with it. A build that fails or is killed thus
leaves no mount, whatever it had mounted.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.errors import ClusterUnavailable
from tests.cluster.progress import say

LENT: Final = (Path("/etc/ssl/certs"), Path("/etc/pip.conf"))
"""What reaches the index of packages as the machine itself does. A RUN that is lent a file leaves
an empty one in its layer, so this is for builds whose images are laid together by copies."""
_ECHOES: Final = ("subprocess exited", "Error: building at STEP")
"""How buildah repeats a command that failed, after the command's own words."""
_STORE_LIMIT_BYTES: Final = 25 * 10**9
"""About two builds of the engine, torch included; layers of old ones are in no image."""


@dataclass(frozen=True, slots=True)
class Buildah:
    """A store of images, and the program that fills it.

    Attributes:
        folder: of the store and of the logs.
        run_root: the state of this session.
        driver: `overlay`, or `vfs` where that cannot mount.
    """

    folder: Path
    run_root: Path
    driver: str

    @classmethod
    @contextlib.contextmanager
    def opened(cls, folder: Path) -> Iterator[Buildah]:
        """Open the store of a folder, for one process at a time."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with tempfile.TemporaryDirectory(prefix="asimg-") as run_root:
                buildah = cls(folder, Path(run_root), "overlay")
                if buildah._run("info").returncode != 0:
                    say("buildah cannot mount overlays here and copies every layer (vfs): slower")
                    buildah = cls(folder, Path(run_root), "vfs")
                yield buildah

    def has(self, name: str) -> bool:
        """Return whether the store has an image of this name."""
        return self._run("inspect", "--type", "image", name).returncode == 0

    def build(
        self,
        context: Path,
        *,
        name: str,
        dockerfile: Path,
        target: str | None = None,
        arguments: Mapping[str, str] | None = None,
        lent: Sequence[Path] = (),
    ) -> None:
        """Build an image, or one target of several.

        Args:
            context: the folder that the Dockerfile copies from.
            name: in full, with the tag.
            dockerfile: where it is.
            target: the stage that is the image; the last one if None.
            arguments: of the build.
            lent: paths of this machine that the build sees read-only, where they exist.

        Raises:
            ClusterUnavailable: with the last words of the build, and where all of them are.
        """
        flags = ["--isolation", "chroot", "--pull-never", "--format", "docker", "--layers"]
        for path in lent:
            if path.exists():
                flags += ["--volume", f"{path}:{path}:ro"]
        for key, value in (arguments or {}).items():
            flags += ["--build-arg", f"{key}={value}"]
        if target is not None:
            flags += ["--target", target]
        command = ["bud", *flags, "--file", str(dockerfile), "--tag", name, str(context)]
        log = self.folder / f"{(target or dockerfile.stem).lower()}.log"
        try:
            self._logged(command, log, name)
        finally:
            self._run("rm", "--all")

    def tag(self, name: str, other: str) -> None:
        """Give an image another name."""
        assert self._run("tag", name, other).returncode == 0

    def archive(self, name: str, path: Path) -> None:
        """Write an image as a docker-archive, its layers uncompressed: those are read fastest.

        Raises:
            ClusterUnavailable: if it cannot be written.
        """
        unfinished = path.with_name(f"{path.name}.new")
        unfinished.unlink(missing_ok=True)
        done = self._run("push", "--quiet", name, f"docker-archive:{unfinished}:{name}")
        if done.returncode != 0:
            unfinished.unlink(missing_ok=True)
            raise ClusterUnavailable(f"{name} cannot be written to {path}: {_last(done.stderr)}")
        unfinished.rename(path)

    def _logged(self, command: Sequence[str], log: Path, name: str) -> None:
        done = self._run(*command)
        log.write_text(done.stdout + done.stderr)
        if done.returncode != 0:
            raise ClusterUnavailable(
                f"{name} cannot be built: {_last(done.stderr)} (all of it: {log})"
            )

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        root, run_root = str(self.folder / self.driver), str(self.run_root)
        own = ["unshare", "--mount", "--propagation", "private", "buildah"]
        store = ["--root", root, "--runroot", run_root, "--storage-driver", self.driver]
        return subprocess.run([*own, *store, *words], capture_output=True, text=True, check=False)

    def bound(self) -> None:
        """Begin anew where layers of old builds have piled up."""
        root = self.folder / self.driver
        if root.exists() and _bytes_in(root) > _STORE_LIMIT_BYTES:
            say(f"emptying {root}, which grew over {_STORE_LIMIT_BYTES // 10**9} GB")
            shutil.rmtree(root)


def _bytes_in(folder: Path) -> int:
    done = subprocess.run(
        ["du", "--summarize", "--block-size=1", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    return int(done.stdout.split()[0])


def _last(words: str) -> str:
    lines = [line for line in words.splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith(_ECHOES)]
    return " / ".join(own[-2:] or lines[-1:]) or "buildah said nothing"
