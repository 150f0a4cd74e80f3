"""`make cluster`: a cluster until Ctrl-C, with a few fake nodes or with real ones.

On fake nodes pods become ready without running; that is enough to see what the operator makes and
how it rolls. With `--nodes N` they run, in containers on this machine; that needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final, NoReturn

from tests.cluster.binary import Binaries, binaries, cache_folder
from tests.cluster.control_plane import ControlPlane
from tests.cluster.device_plugin import ASCEND, DevicePlugin
from tests.cluster.errors import ClusterUnavailable
from tests.cluster.kubelet import Kubelet
from tests.cluster.nodes import missing_for_nodes
from tests.cluster.real_cluster import RealCluster

_NODES: Final = ("npu-0", "npu-1", "npu-2")
_DEVICES: Final = {ASCEND: "8"}
_MOST_NODES: Final = 9


def main(words: list[str]) -> int:
    """Run a cluster until it is told to end; 2 if this machine cannot run what was asked for."""
    asked = _arguments(words)
    if asked.nodes and (missing := missing_for_nodes()):
        print(f"cluster: {missing}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    try:
        kubectl = _kubectl(binaries(os.environ))
        with tempfile.TemporaryDirectory(prefix="ascend-serving-cluster-") as folder:
            state = Path(folder) / "state"
            if asked.nodes:
                _run_real(state, kubectl, asked)
            else:
                _run(state, kubectl)
    except ClusterUnavailable as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except _Ended:
        print("cluster: ended, nothing is left", file=sys.stderr)
    return 0


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.cluster", allow_abbrev=False)
    parser.add_argument("--nodes", type=int, choices=range(1, _MOST_NODES + 1), help="real nodes")
    parser.add_argument("--devices", type=int, default=0, help="Ascend devices of each real node")
    parser.add_argument(
        "--image", type=Path, action="append", default=[], help="archive for the real nodes"
    )
    asked = parser.parse_args(words)
    if not asked.nodes and (asked.devices or asked.image):
        parser.error("--devices and --image are for real nodes; say how many with --nodes")
    return asked


def _run(folder: Path, kubectl: Path) -> None:
    with (
        ControlPlane.start(folder) as control_plane,
        Kubelet(control_plane.api, nodes=_NODES, resources=_DEVICES),
    ):
        _tell(control_plane, kubectl, folder)
        devices = ", ".join(f"{count} {name}" for name, count in _DEVICES.items())
        print(f"# {len(_NODES)} fake nodes with {devices} each; Ctrl-C ends all", flush=True)
        signal.pause()


def _run_real(folder: Path, kubectl: Path, asked: argparse.Namespace) -> None:
    names = [f"n{number}" for number in range(1, asked.nodes + 1)]
    with contextlib.ExitStack() as running:
        cluster = running.enter_context(
            RealCluster.start(folder, nodes=names, archives=asked.image)
        )
        if asked.devices:
            for machine in cluster.machines.values():
                running.enter_context(DevicePlugin(machine, ASCEND, asked.devices))
            cluster.api.wait(lambda: _offer(cluster, asked.devices) or None, "devices are offered")
        _tell(cluster, kubectl, folder)
        devices = f"with {asked.devices} {ASCEND} each" if asked.devices else "without devices"
        print(f"# nodes {', '.join(names)} {devices}; Ctrl-C ends all", flush=True)
        signal.pause()


def _offer(cluster: ControlPlane, devices: int) -> bool:
    nodes = cluster.api.list("/api/v1/nodes")
    return all(node["status"]["allocatable"].get(ASCEND) == str(devices) for node in nodes)


def _tell(cluster: ControlPlane, kubectl: Path, folder: Path) -> None:
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    print(f"# kubectl is {kubectl}; logs are in {folder}")


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
    sys.exit(main(sys.argv[1:]))
