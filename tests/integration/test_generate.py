"""Offline batches over real replicas: order, errors, resumption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

WAIT_S = 120.0


class Processes(Protocol):
    def children_of(self, pid: int) -> list[int]: ...
    def descendants_of(self, pid: int) -> list[int]: ...
    def is_running(self, pid: int) -> bool: ...


def write_prompts(file: Path, count: int, max_tokens: int) -> None:
    lines = [
        {"prompt": f"prompt {number}", "max_tokens": max_tokens, "temperature": 0, "seed": 1}
        | {"ignore_eos": True}
        for number in range(count)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def generate(model: Path, folder: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "serving_cli.entry", "generate", str(model), *flags]
    files = ["--input", str(folder / "in.jsonl"), "--output", str(folder / "out.jsonl")]
    return subprocess.Popen(
        [*command, *files, "--log-level", "warning"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def texts(folder: Path) -> list[str]:
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(len(lines)))
    return [line["response"]["choices"][0]["text"] for line in lines]


def wait_for_results(process: subprocess.Popen[str], partial: Path, count: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while not partial.exists() or partial.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no results"
        time.sleep(0.02)


def test_two_replicas_give_what_one_gives_in_the_order_of_the_input(
    tiny: Path, tmp_path: Path
) -> None:
    answers = []
    for dp in ("1", "2"):
        folder = tmp_path / dp
        folder.mkdir()
        write_prompts(folder / "in.jsonl", 40, 12)
        process = generate(tiny, folder, "--dp", dp, "--dtype", "float32")
        _, errors = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, errors
        assert "40/40" in errors
        answers.append(texts(folder))
    assert answers[0] == answers[1]
    assert len(set(answers[0])) > 10


def test_killed_run_goes_on_where_it_was(tiny: Path, tmp_path: Path, processes: Processes) -> None:
    write_prompts(tmp_path / "in.jsonl", 60, 200)
    partial = tmp_path / "out.jsonl.partial"
    flags = ("--max-num-seqs", "2")
    process = generate(tiny, tmp_path, *flags)
    wait_for_results(process, partial, 3)
    process.kill()
    process.communicate()
    done = partial.read_bytes()
    again = generate(tiny, tmp_path, *flags)
    _, errors = again.communicate(timeout=WAIT_S)
    assert again.returncode == 0, errors
    assert len(texts(tmp_path)) == 60
    kept = [json.loads(line) for line in done.splitlines()[:3]]
    final = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for line in kept:
        assert final[line["index"]]["response"]["id"] == line["response"]["id"]


def test_interrupted_run_says_how_to_go_on_and_leaves_no_process(
    tiny: Path, tmp_path: Path, processes: Processes
) -> None:
    write_prompts(tmp_path / "in.jsonl", 60, 200)
    process = generate(tiny, tmp_path, "--max-num-seqs", "2")
    wait_for_results(process, tmp_path / "out.jsonl.partial", 1)
    everyone = processes.descendants_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    last = errors.splitlines()[-1]
    assert "of 60 requests are done: run it again to go on" in last
    assert "Traceback" not in errors
    assert not [pid for pid in everyone if processes.is_running(pid)]


def test_replica_killed_midway_loses_no_request(
    tiny: Path, tmp_path: Path, processes: Processes
) -> None:
    write_prompts(tmp_path / "in.jsonl", 60, 100)
    process = generate(tiny, tmp_path, "--dp", "2", "--max-num-seqs", "2")
    wait_for_results(process, tmp_path / "out.jsonl.partial", 2)
    victim = processes.children_of(process.pid)[0]
    subprocess.run(["kill", "-KILL", str(victim)], check=True)
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, errors
    assert len(texts(tmp_path)) == 60


def test_request_that_fails_is_an_error_in_its_place(tiny: Path, tmp_path: Path) -> None:
    lines = [{"prompt": "a", "max_tokens": 4}, {"prompt": "a", "temperature": 99}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    process = generate(tiny, tmp_path)
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert "1 of 2 requests failed" in errors.splitlines()[-1]
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert "response" in written[0]
    assert written[1]["error"]["param"] == "temperature"
