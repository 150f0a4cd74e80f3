"""Archives of images: what one holds, and the same image under another tag."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster.image_archive import tar_of
from tests.images.content import hash_of

VERSION_LABEL: Final = "org.opencontainers.image.version"
_CHUNK_BYTES: Final = 1 << 20
_FASTEST: Final = 1
_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a docker-archive of one image says about it.

    Attributes:
        name: in full, with the tag.
        config: of the image, as the archive has it.
        layer_bytes: of each uncompressed layer, the lowest first, by its hash.
    """

    name: str
    config: Mapping[str, Any]
    layer_bytes: Mapping[str, int]

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of the image."""
        labels: Mapping[str, str] = self.config["config"].get("Labels") or {}
        return labels

    @classmethod
    def read(cls, path: Path) -> Contents:
        """Look into a docker-archive."""
        with tarfile.open(path, "r:") as archive:
            [image] = json.loads(_member(archive, "manifest.json"))
            config = json.loads(_member(archive, image["Config"]))
            sizes = [archive.getmember(layer).size for layer in image["Layers"]]
        hashes = config["rootfs"]["diff_ids"]
        return cls(image["RepoTags"][0], config, dict(zip(hashes, sizes, strict=True)))


def compressed_bytes(path: Path) -> int:
    """Return how large an archive is once gzip has gone over it, as a registry would hold it."""
    packer = zlib.compressobj(_FASTEST)
    size = 0
    with path.open("rb") as archive:
        while chunk := archive.read(_CHUNK_BYTES):
            size += len(packer.compress(chunk))
    return size + len(packer.flush())


def retag(archive: Path, tag: str) -> Path:
    """Write the image of an archive anew with another tag and another version label.

    The result is an oci-archive of some kilobytes that names the layers by their hashes and does
    not hold them: it can be imported where the image that it was made from has been imported, and
    takes no time there. For a rollout the two are different images: their identities differ.
    """
    contents = Contents.read(archive)
    name = f"{contents.name.rpartition(':')[0]}:{tag}"
    config = _encoded(_labelled(contents.config, tag))
    manifest = _encoded(_manifest(config, contents.layer_bytes))
    described = _described(_MANIFEST, manifest) | {
        "annotations": {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": tag,
        }
    }
    files = {
        "oci-layout": _encoded({"imageLayoutVersion": "1.0.0"}),
        _blob(config): config,
        _blob(manifest): manifest,
        "index.json": _encoded({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [described]}),
    }
    path = archive.with_name(f"{archive.stem}.{hash_of([tag])}.retagged.tar")
    path.write_bytes(tar_of(files))
    return path


def _labelled(config: Mapping[str, Any], version: str) -> dict[str, Any]:
    inner = config["config"]
    labels = (inner.get("Labels") or {}) | {VERSION_LABEL: version}
    return {**config, "config": {**inner, "Labels": labels}}


def _manifest(config: bytes, layers: Mapping[str, int]) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _described(_CONFIG, config),
        "layers": [
            {"mediaType": _LAYER, "digest": digest, "size": size} for digest, size in layers.items()
        ],
    }


def _described(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _blob(content: bytes) -> str:
    return f"blobs/{_digest(content).replace(':', '/')}"


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _encoded(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    content = archive.extractfile(name)
    assert content is not None
    return content.read()
