"""How `serve` starts, heals and ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import openai
import pytest
from openai import OpenAI


class Served(Protocol):
    process: subprocess.Popen[str]
    log: Path
    model: Path

    @property
    def url(self) -> str: ...
    def states(self) -> list[object]: ...
    def load(self) -> list[dict[str, object]]: ...
    def wait_for(self, condition: object, what: str) -> None: ...
    def wait_ready(self) -> None: ...
    def replica_pids(self) -> list[int]: ...
    def stop(self) -> int: ...


class Processes(Protocol):
    def descendants_of(self, pid: int) -> list[int]: ...
    def children_of(self, pid: int) -> list[int]: ...
    def is_running(self, pid: int) -> bool: ...


Serve = Callable[..., contextlib.AbstractContextManager[Served]]


def stream(served: Served, tokens: int) -> tuple[str, Iterator[str]]:
    """Start a stream; return the replica that answers and the parts to come."""
    client = OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
    raw = client.completions.with_raw_response.create(
        model="tiny",
        prompt="go on",
        max_tokens=tokens,
        stream=True,
        extra_body={"ignore_eos": True},
    )

    def parts() -> Iterator[str]:
        with client:
            for part in raw.parse():
                yield part.choices[0].text

    return raw.headers["x-ascend-serving-replica"], parts()


def test_killed_replica_ends_its_own_streams_with_a_typed_error_and_comes_back(
    serve: Serve, processes: Processes
) -> None:
    with serve("--dp", "2") as served:
        served.wait_ready()
        first, second = stream(served, 1200), stream(served, 1200)
        assert first[0] != second[0]
        next(first[1]), next(second[1])
        killed = _pid_listening_on(int(first[0].rpartition(":")[2]), served.replica_pids())
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(openai.APIError) as failure:
            list(first[1])
        assert failure.value.code == "replica_failed"
        assert "".join(second[1])
        served.wait_for(lambda: "down" in served.states(), "the killed replica shown as down")
        served.wait_ready()
        assert killed not in served.replica_pids()
        assert served.stop() == 0


def test_killed_worker_takes_its_replica_down_and_both_come_back(
    serve: Serve, processes: Processes
) -> None:
    with serve("--dp", "1") as served:
        served.wait_ready()
        [replica] = served.replica_pids()
        [worker] = processes.children_of(replica)
        os.kill(worker, signal.SIGKILL)
        served.wait_for(lambda: not processes.is_running(replica), "the replica's end")
        served.wait_ready()
        assert served.replica_pids() != [replica]
        assert "SIGKILL" in served.log.read_text()


def test_sigterm_finishes_streams_and_leaves_no_process(serve: Serve, processes: Processes) -> None:
    with serve("--dp", "2") as served:
        served.wait_ready()
        everyone = processes.descendants_of(served.process.pid)
        _, parts = stream(served, 200)
        next(parts)
        served.process.send_signal(signal.SIGTERM)
        assert "".join(parts)
        assert served.process.wait(60) == 0
        assert not [pid for pid in everyone if processes.is_running(pid)]


def test_sigterm_while_loading_is_a_clean_end(serve: Serve, processes: Processes) -> None:
    with serve("--dp", "2") as served:
        served.wait_for(
            lambda: len(processes.descendants_of(served.process.pid)) == 4, "two workers"
        )
        everyone = processes.descendants_of(served.process.pid)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 0
        assert "Traceback" not in served.log.read_text()
        assert not [pid for pid in everyone if processes.is_running(pid)]


def test_drain_timeout_ends_streams_with_the_typed_error(serve: Serve) -> None:
    with serve("--drain-timeout", "0") as served:
        served.wait_ready()
        _, parts = stream(served, 1900)
        next(parts)
        served.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError):
            list(parts)
        assert served.process.wait(60) == 0


def test_second_signal_ends_at_once(serve: Serve, processes: Processes) -> None:
    with serve("--drain-timeout", "600") as served:
        served.wait_ready()
        everyone = processes.descendants_of(served.process.pid)
        _, parts = stream(served, 1900)
        next(parts)
        served.process.send_signal(signal.SIGINT)
        served.wait_for(lambda: "draining" in served.log.read_text(), "the drain")
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(60) == 0
        assert "Traceback" not in served.log.read_text()
        served_on = [pid for pid in everyone if processes.is_running(pid)]
        assert not served_on


@pytest.mark.parametrize("moment", ["while loading", "when ready"])
def test_nothing_outlives_a_killed_parent(serve: Serve, processes: Processes, moment: str) -> None:
    with serve("--dp", "2") as served:
        if moment == "when ready":
            served.wait_ready()
        served.wait_for(
            lambda: len(processes.descendants_of(served.process.pid)) == 4, "two workers"
        )
        everyone = processes.descendants_of(served.process.pid)
        served.process.kill()
        served.process.wait()
        deadline = time.monotonic() + 60
        while any(map(processes.is_running, everyone)):
            assert time.monotonic() < deadline, "processes outlive their parent"
            time.sleep(0.05)


def test_replica_that_cannot_start_stops_everything_with_one_line(
    serve: Serve, processes: Processes, tiny: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for original in tiny.iterdir():
        (broken / original.name).write_bytes(original.read_bytes())
    config = broken / "config.json"
    config.write_text(
        config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "serving_cli.entry",
            "serve",
            str(broken),
            "--dp",
            "2",
            "--port",
            "0",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ascend-serving serve: replica ")
    assert "failed to start: " in last
    assert "Traceback" not in done.stderr


def test_file_serves_the_same_as_flags(serve: Serve, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "qwen.yaml"
    file.write_text(
        f"""
apiVersion: ascend-serving.dev/v1alpha1
kind: ServingDeployment
metadata: {{name: qwen}}
spec:
  model: {{uri: {tiny}}}
  parallelism: {{dataParallelSize: 2}}
  devices: {{resourceName: cpu}}
  rollout: {{maxSurge: 1}}
"""
    )
    with serve("-f", str(file)) as served:
        served.wait_ready()
        assert len(served.load()) == 2
        with OpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
            assert [model.id for model in client.models.list()] == ["qwen"]
        assert "only a cluster uses rollout" in served.log.read_text()
        assert served.stop() == 0


def test_requests_during_the_drain_are_finished_not_cut(serve: Serve) -> None:
    with serve("--dp", "1") as served:
        served.wait_ready()
        texts: list[str] = []

        def read() -> None:
            _, parts = stream(served, 300)
            texts.append("".join(parts))

        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        served.wait_for(
            lambda: sum(int(str(one["in_flight"])) for one in served.load()) == 4, "four streams"
        )
        assert served.stop() == 0
        for reader in readers:
            reader.join(60)
        assert len(texts) == 4


def _pid_listening_on(port: int, pids: list[int]) -> int:
    inodes = {
        fields[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port
    }
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if any(f"socket:[{inode}]" == os.readlink(link) for inode in inodes):
                    return pid
    raise AssertionError(f"nobody listens on {port}")
