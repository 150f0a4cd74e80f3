"""A stand-in for a CANN image: the local base with packages called torch and torch_npu.

It has what the Dockerfile's target engine-npu relies on, and nothing that computes: the pair of
packages, outside of any virtual environment, and a script that sets CANN up.
"""

from __future__ import annotations

from typing import Final

from tests.images import base_image
from tests.images.buildah import Buildah
from tests.images.content import hash_of

TORCH_VERSION: Final = "2.10.0"
SET_UP: Final = "CANN is set up"
_DOCKERFILE: Final = f"""\
FROM {base_image.NAME}
RUN site="$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"; \\
    for name in torch torch_npu; do \\
      mkdir -p "$site/$name" "$site/$name-{TORCH_VERSION}.dist-info" \\
      && echo "stand_in = True  # computes nothing" >"$site/$name/__init__.py" \\
      && printf 'Metadata-Version: 2.1\\nName: %s\\nVersion: {TORCH_VERSION}\\n' "$name" \\
        >"$site/$name-{TORCH_VERSION}.dist-info/METADATA"; \\
    done; \\
    mkdir -p /usr/local/Ascend/ascend-toolkit \\
    && echo 'echo {SET_UP} >&2' >/usr/local/Ascend/ascend-toolkit/set_env.sh
"""
KEY: Final = hash_of((base_image.KEY, _DOCKERFILE))
NAME: Final = f"localhost/cann-stand-in:{KEY}"


def ensure_stand_in(buildah: Buildah) -> None:
    """See that the store has the stand-in.

    Raises:
        ClusterUnavailable: if it cannot be made.
    """
    if buildah.has(NAME):
        return
    context = buildah.folder / "cann-stand-in"
    context.mkdir(exist_ok=True)
    dockerfile = context / "cann-stand-in.Dockerfile"
    dockerfile.write_text(_DOCKERFILE)
    buildah.build(context, name=NAME, dockerfile=dockerfile)
