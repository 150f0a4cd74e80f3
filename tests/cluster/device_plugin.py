"""A device plugin that offers Ascend devices which do not exist.

All else is the kubelet's own behaviour: requests, exhaustion, devices that fall ill, and what
happens when a plugin or the kubelet ends. The plugin runs on the host and reaches the machine
through its file system. It registers again whenever the kubelet has started anew.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol, Self

import grpc
from tests.cluster.wire import encode, messages, number, texts

ASCEND: Final = "huawei.com/Ascend910"
_SERVICE: Final = "v1beta1.DevicePlugin"
_FOLDER: Final = "var/lib/kubelet/device-plugins"
_KUBELET: Final = "kubelet.sock"
_NOTHING: Final = b""
_TIMEOUT_S: Final = 10
_LOOK_S: Final = 0.1


class HasFiles(Protocol):
    """A machine, of which only the file system is of interest."""

    @property
    def name(self) -> str:
        """The node's name."""

    @property
    def root(self) -> Path:
        """Its file system, as we see it; a path to nothing while it is off."""


class DevicePlugin:
    """Devices 0 to `count` - 1 of one machine; a context manager.

    Attributes:
        connections: how often a kubelet has come for the list of devices. One that has just been
            started refuses pods with devices for good until then.
    """

    def __init__(self, machine: HasFiles, resource: str = ASCEND, count: int = 8) -> None:
        self.connections = 0
        self._machine = machine
        self._resource = resource
        self._socket_name = f"{resource.rpartition('/')[2].lower()}.sock"
        self._devices = [str(number) for number in range(count)]
        self._unhealthy: set[str] = set()
        self._changed = threading.Condition()
        self._is_serving = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Offer the devices from now on."""
        self._stopping.clear()
        name = f"device-plugin-{self._machine.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the plugin end; the kubelet sees its connection go."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def set_unhealthy(self, devices: Iterable[str]) -> None:
        """Let devices fall ill."""
        self._change(self._unhealthy | set(devices))

    def set_healthy(self, devices: Iterable[str]) -> None:
        """Let devices recover."""
        self._change(self._unhealthy - set(devices))

    def _change(self, unhealthy: set[str]) -> None:
        if unknown := unhealthy - set(self._devices):
            raise ValueError(f"no device {', '.join(sorted(unknown))}: there are {self._devices}")
        with self._changed:
            self._unhealthy = unhealthy
            self._changed.notify_all()

    def _run(self) -> None:
        while not self._stopping.is_set():
            # The kubelet, or the whole machine, may be away. gRPC has a RuntimeError for a socket
            # that cannot be made.
            with contextlib.suppress(OSError, grpc.RpcError, RuntimeError):
                self._serve()
            self._stopping.wait(_LOOK_S)

    def _serve(self) -> None:
        """Serve until the kubelet that we registered with is gone."""
        folder = self._machine.root / _FOLDER
        (folder / self._socket_name).unlink(missing_ok=True)
        with ThreadPoolExecutor() as workers, self._server(workers, folder):
            self._register(folder)
            # A kubelet that starts empties the folder, and one of its machine's next life is in
            # another folder.
            while (folder / self._socket_name).exists():
                if self._stopping.wait(_LOOK_S):
                    return

    @contextlib.contextmanager
    def _server(self, workers: ThreadPoolExecutor, folder: Path) -> Iterator[None]:
        server = grpc.server(workers)
        server.add_generic_rpc_handlers([self._handlers()])
        server.add_insecure_port(f"unix:{folder / self._socket_name}")
        self._is_serving = True
        server.start()
        try:
            yield
        finally:
            with self._changed:
                self._is_serving = False
                self._changed.notify_all()
            server.stop(grace=None).wait()

    def _register(self, folder: Path) -> None:
        options = encode((2, 1))  # GetPreferredAllocation is there
        request = encode((1, "v1beta1"), (2, self._socket_name), (3, self._resource), (4, options))
        with grpc.insecure_channel(f"unix:{folder / _KUBELET}") as channel:
            register = channel.unary_unary("/v1beta1.Registration/Register", None, None)
            register(request, timeout=_TIMEOUT_S)

    def _handlers(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        unary = grpc.unary_unary_rpc_method_handler
        methods = {
            "GetDevicePluginOptions": unary(lambda request, context: encode((2, 1))),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(self._list_and_watch),
            "GetPreferredAllocation": unary(lambda request, context: _preferred(request)),
            "Allocate": unary(lambda request, context: _allocated(request)),
            "PreStartContainer": unary(lambda request, context: _NOTHING),
        }
        return grpc.method_handlers_generic_handler(_SERVICE, methods)

    def _list_and_watch(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        told: set[str] | None = None
        is_new = True
        while True:
            with self._changed:
                while self._is_serving and self._unhealthy == told:
                    self._changed.wait()
                told = self._unhealthy
            if not (self._is_serving and context.is_active()):
                return
            yield encode(*((1, _device(device, told)) for device in self._devices))
            # Asked for more: the list has been taken.
            self.connections += is_new
            is_new = False


def _device(device: str, unhealthy: set[str]) -> bytes:
    return encode((1, device), (2, "Unhealthy" if device in unhealthy else "Healthy"))


def _preferred(request: bytes) -> bytes:
    """Prefer the lowest devices, after those that must be included."""
    answers = []
    for container in messages(request, 1):
        must = texts(container, 2)
        free = sorted(set(texts(container, 1)) - set(must), key=int)
        chosen = [*must, *free][: number(container, 3)]
        answers.append((1, encode(*((1, device) for device in chosen))))
    return encode(*answers)


def _allocated(request: bytes) -> bytes:
    """Tell each container its devices, as Ascend's plugin does."""
    answers = []
    for container in messages(request, 1):
        devices = ",".join(sorted(texts(container, 1), key=int))
        variable = encode((1, "ASCEND_VISIBLE_DEVICES"), (2, devices))
        answers.append((1, encode((1, variable))))
    return encode(*answers)
