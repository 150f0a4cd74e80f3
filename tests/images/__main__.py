"""`python -m tests.images [TARGET ...]`: build the images, print their places and their sizes."""

from __future__ import annotations

import sys
from typing import Final

from tests.cluster.errors import ClusterUnavailable
from tests.images.archive import Contents, compressed_bytes
from tests.images.build import NPU, TARGETS, build, missing_for_images

_MB: Final = 10**6


def main(chosen: list[str]) -> int:
    """Build what was chosen, or all but engine-npu; 2 if this machine cannot."""
    known = (*TARGETS, NPU)
    if unknown := set(chosen) - set(known):
        print(
            f"images: there is no target {', '.join(sorted(unknown))}; "
            f"there are {', '.join(known)}",
            file=sys.stderr,
        )
        return 2
    if missing := missing_for_images():
        print(f"images: {missing}", file=sys.stderr)
        return 2
    try:
        archives = build(chosen or TARGETS)
    except ClusterUnavailable as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    for target, path in archives.items():
        size = sum(Contents.read(path).layer_bytes.values())
        print(
            f"{target}: {compressed_bytes(path) / _MB:.0f} MB compressed, "
            f"{size / _MB:.0f} MB uncompressed, {path}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
