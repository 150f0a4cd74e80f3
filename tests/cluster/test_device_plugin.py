"""A device plugin waits for its machine, however long that is away."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from tests.cluster.device_plugin import DevicePlugin
from tests.cluster.wire import texts

WAIT_S = 60


@dataclass
class Disk:
    """A machine's file system, which says when it has been looked at a second time."""

    name: str
    path: Path
    looks: list[None] = field(default_factory=list)
    seen_twice: threading.Event = field(default_factory=threading.Event)

    @property
    def root(self) -> Path:
        self.looks.append(None)
        if len(self.looks) > 1:
            self.seen_twice.set()
        return self.path


@pytest.fixture
def disk() -> Iterator[Disk]:
    with tempfile.TemporaryDirectory() as folder:  # sockets have short paths
        yield Disk("n1", Path(folder))


def test_plugin_registers_once_its_machine_is_there(disk: Disk) -> None:
    registered = threading.Event()
    names: list[str] = []

    def register(request: bytes, context: grpc.ServicerContext) -> bytes:
        names.extend(texts(request, 3))
        registered.set()
        return b""

    handlers = {"Register": grpc.unary_unary_rpc_method_handler(register)}
    with DevicePlugin(disk), ThreadPoolExecutor() as workers:
        assert disk.seen_twice.wait(WAIT_S)
        folder = disk.path / "var" / "lib" / "kubelet" / "device-plugins"
        folder.mkdir(parents=True)
        server = grpc.server(workers)
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("v1beta1.Registration", handlers)]
        )
        server.add_insecure_port(f"unix:{folder / 'kubelet.sock'}")
        server.start()
        assert registered.wait(WAIT_S)
        server.stop(grace=None).wait()
    assert names[0] == "huawei.com/Ascend910"
