"""A control plane of our own: etcd, API server, controllers and scheduler as plain processes.

All are bound to 127.0.0.1 on free ports, need no rights, die with the process that started them
and leave nothing behind. There is no kubelet: `kubelet.py` plays one where pods must become ready.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

from tests.cluster import components, etcd
from tests.cluster.api import Api
from tests.cluster.binary import Binaries, binaries
from tests.cluster.certificates import Certificates, make_certificates
from tests.cluster.cluster import Cluster
from tests.cluster.components import Layout
from tests.cluster.crds import apply_crds
from tests.cluster.errors import ApiRefused, ClusterUnavailable
from tests.cluster.kubeconfig import write_kubeconfig
from tests.cluster.process import Process
from tests.cluster.tokens import ADMIN, CONTROLLERS, SCHEDULER, Tokens

_READY_TIMEOUT_S: Final = 120
_POLL_S: Final = 0.05


class ControlPlane(Cluster):
    """A running control plane.

    The methods that break it are for a control plane of one's own, never for the shared one.

    Attributes:
        tokens: of its users.
    """

    def __init__(
        self,
        layout: Layout,
        certificates: Certificates,
        found: Binaries,
        *,
        watch_cache: bool,
        nodes: Iterable[str] = (),
    ) -> None:
        ca = certificates.ca.read_text()
        tokens = Tokens(nodes)
        admin = tokens.of(ADMIN)
        kubeconfig = write_kubeconfig(
            layout.folder / "kubeconfig", server=layout.url, ca=ca, token=admin
        )
        super().__init__(
            url=layout.url,
            ca=ca,
            kubeconfig=kubeconfig,
            api=Api(layout.url, ssl.create_default_context(cadata=ca), admin),
            folder=layout.folder,
            has_controllers=found.has("kube-controller-manager") and found.has("kube-scheduler"),
        )
        self.audit_log = layout.audit_log
        self.tokens = tokens
        self._layout = layout
        self._certificates = certificates
        self._binaries = found
        self._watch_cache = watch_cache
        self._running: dict[str, Process] = {}
        # The kernel ends a guarded process with the thread that started it; this one lasts.
        self._starter = ThreadPoolExecutor(max_workers=1)

    @classmethod
    def start(cls, folder: Path, *, watch_cache: bool = True) -> Self:
        """Start a control plane whose state is in `folder`, and wait until it is of use.

        Raises:
            ClusterUnavailable: if there are no binaries, or a component does not come up.
        """
        found = binaries(os.environ)
        folder.mkdir(parents=True, exist_ok=True)
        started = cls(
            Layout.in_folder(folder), make_certificates(folder), found, watch_cache=watch_cache
        )
        try:
            started._start_all()
        except BaseException:
            started.stop()
            raise
        return started

    @property
    def port(self) -> int:
        """The API server's port on 127.0.0.1."""
        return self._layout.apiserver

    @property
    def pids(self) -> list[int]:
        """The process ids of what runs."""
        return [process.pid for process in self._running.values()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process and remove the state."""
        with contextlib.ExitStack() as steps:  # the last one first, and every one is tried
            steps.callback(shutil.rmtree, self._folder, ignore_errors=True)
            steps.callback(self._starter.shutdown)
            for process in self._running.values():
                steps.callback(process.kill)
        self._running.clear()

    def kill_apiserver(self) -> None:
        """End the API server at once; its port refuses."""
        self._running.pop("kube-apiserver").kill()

    def start_apiserver(self) -> None:
        """Start the API server, at the same address, and wait until it is ready."""
        self._run("kube-apiserver", self._apiserver_flags())
        self._wait("kube-apiserver", self._answers_ready)

    def freeze_apiserver(self) -> None:
        """Stop the API server where it is: connections stay open and nothing is answered."""
        self._running["kube-apiserver"].freeze()

    def thaw_apiserver(self) -> None:
        """Let the API server go on."""
        self._running["kube-apiserver"].thaw()

    def raise_revision(self) -> None:
        """Let etcd's revision go on; with the API server dead its old watches become too old."""
        etcd.raise_revision(self._layout.etcd_url, self._certificates)

    def compact(self) -> None:
        """Forget old revisions: 410 for older watches and lists, without the watch cache only."""
        etcd.compact(self._layout.etcd_url, self._certificates)

    def _start_all(self) -> None:
        self._run("etcd", components.etcd(self._layout, self._certificates))
        self.start_apiserver()
        self._apply_crds()
        if self.has_controllers:
            self._start_controllers()

    def _apiserver_flags(self) -> list[str]:
        return components.apiserver(
            self._layout, self._certificates, self.tokens, watch_cache=self._watch_cache
        )

    def _apply_crds(self) -> None:
        try:
            apply_crds(self.api)
        except ApiRefused as refused:
            raise ClusterUnavailable(f"manifests/crd is refused: {refused}") from refused

    def _start_controllers(self) -> None:
        own = self.kubeconfig_for(self.tokens.of(CONTROLLERS))
        self._run(
            "kube-controller-manager",
            components.controller_manager(self._layout, self._certificates, own),
        )
        own = self.kubeconfig_for(self.tokens.of(SCHEDULER))
        self._run("kube-scheduler", components.scheduler(self._layout, own))
        self._wait("kube-controller-manager", self._has_default_service_account)

    def _run(self, component: str, flags: list[str]) -> None:
        command = [*self._binaries.command(component), *flags]
        self._running[component] = self._spawn(component, command)

    def _spawn(self, name: str, command: Sequence[str]) -> Process:
        log = self._folder / f"{name}.log"
        return self._starter.submit(Process, name, command, log).result()

    def _wait(self, component: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not holds():
            for process in self._running.values():
                if not process.is_running:
                    raise ClusterUnavailable(f"{process.name} ended:\n{process.tail()}")
            if time.monotonic() > deadline:
                tail = self._running[component].tail()
                raise ClusterUnavailable(
                    f"{component} is not ready after {_READY_TIMEOUT_S} s:\n{tail}"
                )
            time.sleep(_POLL_S)

    def _answers_ready(self) -> bool:
        try:
            self.api.text("/readyz")
        except (OSError, ApiRefused):
            return False
        return True

    def _has_default_service_account(self) -> bool:
        return self.api.exists("/api/v1/namespaces/default/serviceaccounts/default")
