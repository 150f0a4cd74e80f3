"""Every command that the README shows is run here, or by continuous integration itself."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()

RUN_BY_CI = {"make test", "make lint", "make e2e-deps", "make e2e"}
# Helm by the chart's tests; images by buildah, from the same Dockerfile, in the real cluster's.
RUN_ELSEWHERE = {"helm install", "for image in operator router engine-cpu; do docker build"}
RUN_HERE = {
    "make demo", "make help", "make bench", "make cluster", "curl", "kubectl",
    ".venv/bin/ascend-serving serve", ".venv/bin/ascend-serving plan",
}  # fmt: skip


class Served(Protocol):
    port: int
    model: Path

    def wait_ready(self) -> None: ...


Serve = Callable[..., AbstractContextManager[Served]]


def commands() -> list[str]:
    """Lines of indented blocks that are commands, continued lines joined."""
    blocks = "\n".join(line[4:] for line in README.splitlines() if line.startswith("    "))
    lines = blocks.replace("\\\n", " ").splitlines()
    return [line.partition("  #")[0].strip() for line in lines if _is_command(line)]


def _is_command(line: str) -> bool:
    return line.startswith(("make ", "curl ", "kubectl ", "helm ", "for ", ".venv/bin/"))


def test_every_command_is_run_somewhere() -> None:
    known = RUN_BY_CI | RUN_ELSEWHERE | RUN_HERE
    unknown = [line for line in commands() if not any(line.startswith(one) for one in known)]
    assert len(commands()) >= 6
    assert unknown == []


def test_ci_runs_lint_tests_and_the_real_cluster() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    assert [line for line in ci.splitlines() if line.startswith("make ")] == [
        "make lint",
        "make e2e-deps",
        "make test",
        "make e2e",
    ]


def test_demo_answers_shows_who_did_and_stops_everything(free_port: int) -> None:
    done = _make("demo", "DETACH=1", f"PORT={free_port}")
    assert done.returncode == 0, done.stderr
    assert re.search(r"answered by replica 127\.0\.0\.1:\d+", done.stdout)
    assert done.stdout.count(" ready ") == 2
    assert f":{free_port}" not in _listening_ports()


def test_demo_on_a_port_in_use_says_so(free_port: int) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))
        other.listen()
        done = _make("demo", "DETACH=1", f"PORT={free_port}")
    assert done.returncode != 0
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_lists_every_target() -> None:
    listed = _make("help").stdout
    targets = re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    assert all(target in listed for target in targets)


def test_bench_runs(free_port: int) -> None:
    done = _make("bench", "ONLY=scheduler")
    assert done.returncode == 0, done.stderr
    assert "both, at 32 sequences" in done.stdout


def test_serve_and_curl_as_written(serve: Serve) -> None:
    [curl] = [line for line in commands() if line.startswith("curl")]
    [shown] = [line for line in commands() if line.startswith(".venv/bin/ascend-serving serve")]
    flags = shlex.split(shown)[3:]
    with serve(*flags, "--served-model-name", "model") as served:
        served.wait_ready()
        command = shlex.split(curl.replace(":8000", f":{served.port}"))
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["role"] == "assistant"


def test_plan_as_written() -> None:
    [shown] = [line for line in commands() if line.startswith(".venv/bin/ascend-serving plan")]
    done = subprocess.run(
        [sys.executable, "-m", "serving_cli.entry", *shlex.split(shown)[1:]],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.count("kind: Pod\n") == 2


def test_table_of_commands_is_the_command_line() -> None:
    shown = set(re.findall(r"`ascend-serving ([a-z-]+)", README))
    done = subprocess.run(
        [sys.executable, "-m", "serving_cli.entry", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    listed = set(re.findall(r"^    ([a-z-]+)(?: |$)", done.stdout, re.MULTILINE))
    assert shown == listed


def _make(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
        timeout=280,
    )


def _listening_ports() -> str:
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = [row.split()[1] for row in rows if row.split()[3] == "0A"]
    return " ".join(f":{int(address.rpartition(':')[2], 16)}" for address in listening)
