"""A served tiny model: real processes, the real command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving_cli import tiny_model

WAIT_S = 120.0
"""Generous: a wait that ends here is a failure, not a measurement."""


@dataclass(frozen=True)
class Served:
    """A running `ascend-serving serve` and how to look at it."""

    process: subprocess.Popen[str]
    port: int
    model: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def load(self) -> list[dict[str, object]]:
        try:
            with urllib.request.urlopen(f"{self.url}/v1/load", timeout=10) as answer:
                replicas: list[dict[str, object]] = json.load(answer)["replicas"]
                return replicas
        except (urllib.error.URLError, OSError):
            return []

    def states(self) -> list[object]:
        return [replica["state"] for replica in self.load()]

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert self.process.poll() is None, f"serve ended: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"not within {WAIT_S:g} s: {what}"
            time.sleep(0.05)

    def wait_ready(self) -> None:
        def ready() -> bool:
            states = self.states()
            return bool(states) and all(state == "ready" for state in states)

        self.wait_for(ready, "every replica ready")

    def replica_pids(self) -> list[int]:
        """Processes that serve started itself, not their workers."""
        return children_of(self.process.pid)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def descendants_of(pid: int) -> list[int]:
    found = children_of(pid)
    return found + [below for child in found for below in descendants_of(child)]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def free_port() -> int:
    return _free_port()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    tiny_model.write(folder)
    return folder


@contextlib.contextmanager
def serving(model: Path, log: Path, *flags: str) -> Iterator[Served]:
    """Start `serve`; whatever is left of it afterwards is ended."""
    port = _free_port()
    command = [sys.executable, "-m", "serving_cli.entry", "serve"]
    if "-f" not in flags:
        command.append(str(model))
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port), *flags],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    try:
        yield Served(process, port, model, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture
def serve(tiny: Path, tmp_path: Path) -> Callable[..., contextlib.AbstractContextManager[Served]]:
    def start(*flags: str) -> contextlib.AbstractContextManager[Served]:
        return serving(tiny, tmp_path / "serve.log", *flags)

    return start


@pytest.fixture(scope="module")
def served(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two replicas for all tests of a module; float32, so that a batch changes no answer."""
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving(tiny, log, "--dp", "2", "--dtype", "float32") as running:
        running.wait_ready()
        yield running


@pytest.fixture
def processes() -> type[Processes]:
    return Processes


class Processes:
    """What the tests ask of process ids."""

    children_of = staticmethod(children_of)
    descendants_of = staticmethod(descendants_of)
    is_running = staticmethod(is_running)
