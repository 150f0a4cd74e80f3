"""A node as a machine: namespaces of its own, held by one process, in which every path is usual.

Killing the holder is a power failure, and also the whole clean-up but for its control groups.
The disk, which is a folder, stays until the cluster ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.api import Body
from tests.cluster.bridge import HOST, PODS, PREFIX, Place, plug_in, unplug
from tests.cluster.cgroups import exhaust_memory, make_groups, processes_of, remove_groups
from tests.cluster.errors import ClusterUnavailable
from tests.cluster.image_archive import Archive
from tests.cluster.image_store import copy_root, import_archive
from tests.cluster.node_files import (
    write_containerd_config,
    write_kubelet_config,
    write_pod_network,
)
from tests.cluster.process import Entered

_UNSHARE: Final = (
    "/usr/bin/unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child",
    "--mount-proc", "--propagation", "private",
)  # fmt: skip
# $1 the node's folder, $2 its name, $3 the program that stays, $4 and $5 the folders of all that
# the node is given. Where these are hidden, they are put back at their places.
_HOLD: Final = """
set -e
exec 3<"$4" 4<"$5"
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /var/log
[ -e "$4" ] || { mkdir -p "$4"; mount --no-canonicalize --bind /proc/self/fd/3 "$4"; }
[ -e "$5" ] || { mkdir -p "$5"; mount --no-canonicalize --bind /proc/self/fd/4 "$5"; }
exec 3<&- 4<&-
mkdir -p /run/lock /run/netns /var/lib/kubelet /var/lib/containerd /var/lib/cni
mkdir -p /var/log/pods /var/log/containers
mount --bind "$1/kubelet" /var/lib/kubelet
mount --make-rshared /var/lib/kubelet
mount --bind "$1/containerd" /var/lib/containerd
mount --bind "$1/pods" /var/log/pods
hostname "$2"
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
exec "$3"
"""
# $1 where the node's processes join its group; the host's environment stays outside.
_JOIN: Final = 'echo 0 > "$1"; shift; exec env -i PATH="$PATH" HOME=/root "$@"'
_TIMEOUT_S: Final = 60
_POLL_S: Final = 0.01

Spawn = Callable[[str, Sequence[str]], Entered]


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """What is put on every machine.

    Attributes:
        pause: a program that reaps what is orphaned.
        images: a containerd root to start from.
        kubelet: how its command line begins; likewise `proxy`.
        client_ca: of the certificate with which the API server comes to kubelets.
        cache: holds the programs and the nodes' disks.
        state: holds the files of this cluster.
    """

    pause: Path
    images: Path
    kubelet: Sequence[str]
    proxy: Sequence[str]
    client_ca: Path
    registry_url: str
    proxy_kubeconfig: Path
    cache: Path
    state: Path


class Machine:
    """One node; `spawn` starts processes that end with the cluster."""

    def __init__(
        self,
        place: Place,
        others: Sequence[Place],
        folder: Path,
        software: Software,
        kubeconfig: Path,
        spawn: Spawn,
    ) -> None:
        self.name = place.name
        self.address = place.address
        self._place = place
        self._others = others
        self._folder = folder
        self._software = software
        self._kubeconfig = kubeconfig
        self._spawn = spawn
        self._group = f"{PREFIX}{place.number}"
        self._running: dict[str, Entered] = {}
        self._join = Path()

    def install(self) -> None:
        """Put the software on the disk."""
        for name in ("kubelet", "pods"):
            (self._folder / name).mkdir(parents=True)
        copy_root(self._software.images, self._folder / "containerd")
        write_pod_network(self._folder, self._place)

    def start(self) -> None:
        """Switch it on; returns when everything on it has been started."""
        self.boot()
        self.join()

    def boot(self) -> None:
        """Start what needs no cluster."""
        self._join = make_groups(self._group)
        self._hold()
        self._plug_in()
        self.start_containerd()

    def join(self) -> None:
        """Start what makes it a node of the cluster."""
        self.start_kubelet()
        self._start_proxy()

    def kill(self) -> None:
        """Let the power fail: nothing of it runs or says anything any more, not even goodbye."""
        running, self._running = self._running, {}
        with contextlib.ExitStack() as steps:  # the last one first, and every one is tried
            steps.callback(remove_groups, self._group)
            for process in reversed(running.values()):  # of which the holder is the first
                steps.callback(process.kill)
            steps.callback(unplug, self._place, self._others)

    def start_kubelet(self) -> None:
        """Start the kubelet."""
        config = write_kubelet_config(
            self._folder, client_ca=self._software.client_ca, group=self._group
        )
        self._run(
            "kubelet",
            *self._software.kubelet,
            f"--config={config}",
            f"--kubeconfig={self._kubeconfig}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
        )

    def kill_kubelet(self) -> None:
        """End the kubelet at once; its pods run on."""
        self._running.pop("kubelet").kill()

    def start_containerd(self) -> None:
        """Start containerd, and wait until it answers."""
        config = write_containerd_config(self._folder, self._software.registry_url)
        self._run("containerd", "containerd", "--config", str(config))
        self._wait("containerd", lambda: self._ask("ctr", "version").returncode == 0)

    def kill_containerd(self) -> None:
        """End containerd at once; containers run on."""
        self._running.pop("containerd").kill()

    def add_image(self, archive: Archive) -> None:
        """Import what an archive holds."""
        import_archive([*self._enter(), "ctr", "--namespace", "k8s.io"], archive)

    def run(self, *command: str) -> str:
        """Run a command on the machine and return what it prints.

        Raises:
            CalledProcessError: if it fails.
        """
        done = self._ask(*command)
        done.check_returncode()
        return done.stdout

    def processes(self, pod: Body, container: str) -> list[int]:
        """Return the processes of a container of a pod that runs here, as the host numbers them."""
        return processes_of(self._group, _container_id(pod, container))

    def kill_container(self, pod: Body, container: str) -> None:
        """SIGKILL every process of a container; the kubelet starts it again."""
        for pid in self.processes(pod, container):
            with contextlib.suppress(ProcessLookupError):  # it went with another
                os.kill(pid, signal.SIGKILL)

    def exhaust_memory(self, pod: Body, container: str) -> None:
        """Let the kernel's OOM killer end a container."""
        exhaust_memory(self._group, _container_id(pod, container))

    @property
    def root(self) -> Path:
        """The machine's file system, as the host sees it; a path to nothing while it is off."""
        holder = self._running.get("holder")
        return Path(f"/proc/{holder.inner if holder else 0}/root")

    @property
    def has_failed(self) -> str | None:
        """The name and last words of a process that ended by itself."""
        for process in self._running.values():
            if not process.is_running:
                return f"{process.name} ended:\n{process.tail()}"
        return None

    def _hold(self) -> None:
        pause = self._software.pause
        given = (str(self._software.cache), str(self._software.state))
        arguments = (str(self._folder), self.name, str(pause), *given)
        hold = [*_UNSHARE, "sh", "-c", _HOLD, "holder", *arguments]
        self._running["holder"] = holder = self._spawn(
            f"{self.name}-holder", [_path("sh"), "-c", _JOIN, "join", str(self._join), *hold]
        )
        self._wait("holder", lambda: _command_of(holder.inner) == str(pause))

    def _plug_in(self) -> None:
        plug_in(self._place, self._running["holder"].inner)
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "route", "add", "default", "via", HOST)
        for other in self._others:
            self.run("ip", "route", "add", other.pods, "via", other.address)

    def _start_proxy(self) -> None:
        self._run(
            "proxy",
            *self._software.proxy,
            f"--kubeconfig={self._software.proxy_kubeconfig}",
            "--proxy-mode=iptables",
            f"--hostname-override={self.name}",
            f"--cluster-cidr={PODS}",
            # Their settings of the kernel cannot be written in a network namespace.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        )

    def _run(self, name: str, *command: str) -> None:
        self._running[name] = self._spawn(f"{self.name}-{name}", [*self._enter(), *command])

    def _ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._enter(), *command], capture_output=True, text=True, check=False
        )

    def _enter(self) -> list[str]:
        pid = str(self._running["holder"].inner)
        enter = ["nsenter", "-t", pid, "-m", "-n", "-p", "-u", "-i", "--"]
        return [_path("sh"), "-c", _JOIN, "join", str(self._join), *enter]

    def _wait(self, name: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _TIMEOUT_S
        while not holds():
            process = self._running[name]
            if not process.is_running:
                raise ClusterUnavailable(f"{process.name} ended:\n{process.tail()}")
            if time.monotonic() > deadline:
                raise ClusterUnavailable(
                    f"{process.name} is not ready after {_TIMEOUT_S} s:\n{process.tail()}"
                )
            time.sleep(_POLL_S)


def _container_id(pod: Body, container: str) -> str:
    statuses = pod["status"]["containerStatuses"]
    status = next(status for status in statuses if status["name"] == container)
    found: str = status["containerID"]
    return found.removeprefix("containerd://")


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return ""


def _path(program: str) -> str:
    return shutil.which(program) or program
