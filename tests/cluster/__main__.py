"""`make cluster`: a control plane with a few fake nodes, until Ctrl-C.

Pods become ready without running; that is enough to see what the operator makes and how it rolls.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final, NoReturn

from tests.cluster.binary import Binaries, binaries, cache_folder
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterUnavailable
from tests.cluster.kubelet import Kubelet

_NODES: Final = ("npu-0", "npu-1", "npu-2")
_DEVICES: Final = {"huawei.com/Ascend910": "8"}


def main() -> int:
    """Run a cluster until it is told to end."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    try:
        kubectl = _kubectl(binaries(os.environ))
        with tempfile.TemporaryDirectory(prefix="ascend-serving-cluster-") as folder:
            _run(Path(folder) / "state", kubectl)
    except ClusterUnavailable as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except _Ended:
        print("cluster: ended, nothing is left", file=sys.stderr)
    return 0


def _run(folder: Path, kubectl: Path) -> None:
    with (
        ControlPlane.start(folder) as control_plane,
        Kubelet(control_plane.api, nodes=_NODES, resources=_DEVICES),
    ):
        print(f"export KUBECONFIG={control_plane.kubeconfig}")
        print(f"# kubectl is {kubectl}; logs are in {folder}")
        devices = ", ".join(f"{count} {name}" for name, count in _DEVICES.items())
        print(f"# {len(_NODES)} fake nodes with {devices} each; Ctrl-C ends all", flush=True)
        signal.pause()


class _Ended(BaseException):
    """The one who started it wants it to end."""


def _end(*_: object) -> NoReturn:
    raise _Ended


def _kubectl(found: Binaries) -> Path:
    if found.one is None:
        return Path(found.command("kubectl")[0])
    # The name by which the one binary is called says what it is.
    link = cache_folder(os.environ) / "kubectl"
    unfinished = link.with_name(f"kubectl.{os.getpid()}")
    unfinished.symlink_to(found.one)
    unfinished.rename(link)
    return link


if __name__ == "__main__":
    sys.exit(main())
