"""`make demo`: a tiny model, dp=2 on the CPU, one streamed chat request, the load table."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from http.client import HTTPResponse
from pathlib import Path

from serving_cli import tiny_model

QUESTION = "What does a router do?"
READY_TIMEOUT_S = 300
STOP_TIMEOUT_S = 60
REPORT_S = 0.2
"""For the replicas to report that the answer is done."""


def main() -> int:
    """Run the demo; stays until Ctrl-C unless `--detach` is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detach", action="store_true", help="stop everything after the answer")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ascend-serving-demo-") as folder:
        model = Path(folder) / "tiny"
        model.mkdir()
        _say(f"writing a tiny random model to {model}")
        tiny_model.write(model)
        return _serve_and_ask(model, arguments.port, detach=arguments.detach)


def _serve_and_ask(model: Path, port: int, *, detach: bool) -> int:
    command = ["serve", str(model), "--dp", "2", "--device", "cpu", "--port", str(port)]
    _say(f"ascend-serving {' '.join(command)}")
    server = subprocess.Popen(
        [sys.executable, "-m", "serving_cli.entry", *command, "--log-level", "warning"]
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_ready(server, url)
        _ask(url)
        time.sleep(REPORT_S)
        _show_load(url)
        if not detach:
            _say(f"serving at {url}/v1 (dashboard: {url}/); Ctrl-C stops it")
            return server.wait()
    except KeyboardInterrupt:
        _say("stopping")
    finally:
        _stop(server)
    return 0


def _wait_ready(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while server.poll() is None and time.monotonic() < deadline:
        load = _load(url)
        if load and all(replica["state"] == "ready" for replica in load):
            return
        time.sleep(0.2)
    sys.exit(server.poll() or 1)


def _load(url: str) -> list[dict[str, str | int | None]]:
    try:
        with urllib.request.urlopen(f"{url}/v1/load", timeout=5) as answer:
            replicas: list[dict[str, str | int | None]] = json.load(answer)["replicas"]
            return replicas
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return []


def _ask(url: str) -> None:
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 48,
        "temperature": 0,
        "stream": True,
    }
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), headers
    )
    _say(f"asking: {QUESTION}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        _print_stream(answer)
        replica = answer.headers["x-ascend-serving-replica"]
    _say(f"answered by replica {replica}")


def _print_stream(answer: HTTPResponse) -> None:
    for line in answer:
        data = line.decode().removeprefix("data: ").strip()
        if data and data != "[DONE]":
            for choice in json.loads(data)["choices"]:
                print(choice["delta"].get("content") or "", end="", flush=True)
    print()


def _show_load(url: str) -> None:
    columns = ("url", "state", "pending_tokens", "reserved_tokens", "in_flight")
    widths = [max(len(column), 24 if column == "url" else 0) for column in columns]
    rows = [columns] + [tuple(str(replica[column]) for column in columns) for replica in _load(url)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)))


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _say(text: str) -> None:
    print(f"==> {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
