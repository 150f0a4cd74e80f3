"""Images of one static program, written without any tool; and what an archive says it holds."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster.errors import ClusterUnavailable

_USER: Final = "65532:65532"
_DOCKER: Final = "manifest.json"
_OCI: Final = "index.json"
_NAME: Final = "io.containerd.image.name"
_REFERENCE: Final = "org.opencontainers.image.ref.name"


def write_image(path: Path, *, name: str, program: Path, architecture: str) -> None:
    """Write the docker-archive of an image `name` whose entrypoint is `program`, and no more."""
    layer = tar_of({program.name: program.read_bytes()}, mode=0o755)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": _USER},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}"]},
    }
    encoded = json.dumps(config).encode()
    files = {"layer.tar": layer, f"{_sha256(encoded)}.json": encoded}
    manifest = [{"Config": f"{_sha256(encoded)}.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_bytes(tar_of(files | {_DOCKER: json.dumps(manifest).encode()}))
    unfinished.rename(path)


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive of images.

    Attributes:
        identity: the hash of its manifest, which names all else by its hash.
        names: of its images, in full.
    """

    path: Path
    identity: str
    names: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Archive:
        """Look into an archive of either form.

        Raises:
            ClusterUnavailable: if it is none.
        """
        try:
            with tarfile.open(path, "r:") as archive:
                manifest = _manifest(archive)
        except (OSError, tarfile.TarError) as error:
            raise ClusterUnavailable(f"{path} is no image archive: {error}") from error
        if manifest is None:
            raise ClusterUnavailable(f"{path} is no image archive: no {_DOCKER}, no {_OCI} in it")
        return cls(path.absolute(), _sha256(manifest)[:16], tuple(_names(json.loads(manifest))))


def _manifest(archive: tarfile.TarFile) -> bytes | None:
    found = {}
    for member in archive:
        name = member.name.removeprefix("./")
        if name in (_DOCKER, _OCI):
            content = archive.extractfile(member)
            found[name] = content.read() if content is not None else b""
    return found.get(_OCI) or found.get(_DOCKER)  # an archive with both is read as OCI


def _names(manifest: Any) -> Iterator[str]:
    if isinstance(manifest, list):
        for image in manifest:
            yield from image["RepoTags"]
    else:
        for image in manifest["manifests"]:
            annotations = image.get("annotations", {})
            yield annotations.get(_NAME) or annotations[_REFERENCE]


def tar_of(files: Mapping[str, bytes], mode: int = 0o644) -> bytes:
    """Return an archive of files with these names and contents."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
