"""A cluster with real nodes on this machine: kubelets, containers, Services and DNS.

The API server is at a bridge of the cluster's own, which every node is plugged into. One such
cluster at a time runs on a machine; a second one waits for its end.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

from tests.cluster.binary import Binaries, binaries, cache_folder
from tests.cluster.bridge import FIRST_SERVICE, HOST, PREFIX, Place, check_networks, make_bridge
from tests.cluster.certificates import Certificates, make_certificates
from tests.cluster.components import Layout
from tests.cluster.control_plane import ControlPlane
from tests.cluster.empty_registry import EmptyRegistry
from tests.cluster.errors import ClusterUnavailable
from tests.cluster.image_archive import Archive
from tests.cluster.image_store import ImageStore
from tests.cluster.machine import Machine, Software
from tests.cluster.nodes import missing_for_nodes
from tests.cluster.process import Entered
from tests.cluster.proxies import bypass_proxies
from tests.cluster.static_images import PAUSE, static_image
from tests.cluster.tenancy import Tenancy
from tests.cluster.tokens import DNS, PROXY, node_user

_COREFILE: Final = """\
.:53 {{
    bind {host}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 1
    }}
}}
"""


class RealCluster(ControlPlane):
    """A running cluster with real nodes.

    Attributes:
        machines: its nodes by name.
        images: the containerd root that they share the contents of.
    """

    def __init__(
        self,
        layout: Layout,
        certificates: Certificates,
        found: Binaries,
        *,
        watch_cache: bool,
        nodes: Sequence[str] = (),
    ) -> None:
        super().__init__(layout, certificates, found, watch_cache=watch_cache, nodes=nodes)
        self.machines: dict[str, Machine] = {}
        self.images = Path()
        self._places = [Place(name=name, number=n) for n, name in enumerate(nodes, start=1)]
        self._registry = EmptyRegistry(layout.address)
        self._tenancy: Tenancy | None = None

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        watch_cache: bool = True,
        nodes: Sequence[str] = ("n1", "n2"),
        archives: Iterable[Path] = (),
    ) -> Self:
        """Start a cluster whose nodes have the images of `archives`, and wait until it is of use.

        Raises:
            ClusterUnavailable: if the machine lacks something, or a part does not come up.
        """
        if missing := missing_for_nodes():
            raise ClusterUnavailable(missing)
        found = binaries(os.environ)
        folder.mkdir(parents=True, exist_ok=True)
        cache = cache_folder(os.environ)
        with contextlib.ExitStack() as undo:
            tenancy = undo.enter_context(Tenancy.begin())
            check_networks()
            bypass_proxies(os.environ)
            images = ImageStore(cache).root_with(_archives(cache, archives))
            tenancy.will_make(prefix=PREFIX, folders=[_disks(cache), folder])
            shutil.rmtree(_disks(cache), ignore_errors=True)  # of one whose machine went down
            make_bridge()
            started = cls(
                Layout.in_folder(folder, HOST),
                make_certificates(folder, HOST, FIRST_SERVICE),
                found,
                watch_cache=watch_cache,
                nodes=nodes,
            )
            undo.callback(started.stop)
            started.images = images
            started._start_with_nodes(cache)
            undo.pop_all()
        started._tenancy = tenancy
        return started

    def stop(self) -> None:
        """End every process and remove everything that was made."""
        with contextlib.ExitStack() as steps:  # the last one first, and every one is tried
            if self._tenancy is not None:
                steps.callback(self._tenancy.end)
            steps.callback(super().stop)
            steps.callback(self._registry.stop)
            steps.callback(self._kill_machines)

    def add_image(self, archive: Path) -> None:
        """Import the images of an archive into every node that runs."""
        read = Archive.read(archive)
        for machine in self.machines.values():
            machine.add_image(read)

    def _kill_machines(self) -> None:
        with ThreadPoolExecutor() as killers:
            list(killers.map(Machine.kill, self.machines.values()))
        self.machines.clear()

    def _start_with_nodes(self, cache: Path) -> None:
        software = Software(
            pause=PAUSE.built(cache),
            images=self.images,
            kubelet=self._binaries.command("kubelet"),
            proxy=self._binaries.command("kube-proxy"),
            client_ca=self._certificates.ca,
            registry_url=self._registry.url,
            proxy_kubeconfig=self.kubeconfig_for(self.tokens.of(PROXY)),
            cache=cache,
            state=self._folder,
        )
        made = [self._machine(place, _disks(cache), software) for place in self._places]
        with ThreadPoolExecutor() as starters:
            starting = [starters.submit(_set_up, machine) for machine in made]
            self._start_all()
            self._start_dns()
            for machine, started in zip(made, starting, strict=True):
                started.result()
                machine.join()
        self._wait_nodes()

    def _machine(self, place: Place, disks: Path, software: Software) -> Machine:
        others = [other for other in self._places if other != place]
        kubeconfig = self.kubeconfig_for(self.tokens.of(node_user(place.name)))
        machine = Machine(place, others, disks / place.name, software, kubeconfig, self._enter)
        self.machines[place.name] = machine
        return machine

    def _start_dns(self) -> None:
        corefile = self._folder / "Corefile"
        kubeconfig = self.kubeconfig_for(self.tokens.of(DNS))
        corefile.write_text(_COREFILE.format(host=HOST, kubeconfig=kubeconfig))
        self._run("coredns", ["-conf", str(corefile)])

    def _enter(self, name: str, command: Sequence[str]) -> Entered:
        log = self._folder / f"{name}.log"
        return self._starter.submit(Entered, name, command, log).result()

    def _wait_nodes(self) -> None:
        for name in self.machines:
            self.api.wait(functools.partial(self._is_ready, name), f"node {name} is Ready")

    def _is_ready(self, name: str) -> bool:
        if failed := self.machines[name].has_failed:
            raise ClusterUnavailable(failed)
        status = self.api.get(f"/api/v1/nodes/{name}")["status"]
        return any(c["type"] == "Ready" and c["status"] == "True" for c in status["conditions"])


def _set_up(machine: Machine) -> None:
    machine.install()
    machine.boot()


def _disks(cache: Path) -> Path:
    # On the file system of the image stores, of which they take hard links.
    return cache / "nodes"


def _archives(cache: Path, given: Iterable[Path]) -> list[Archive]:
    return [Archive.read(path) for path in (static_image(PAUSE, cache), *given)]
