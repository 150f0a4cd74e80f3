"""What the pod of `helm test` runs, as its command says, against a server of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.charts.helm import Helm
from tests.manifests.documents import only

ANSWERS: dict[str, tuple[int, dict[str, Any]]] = {
    "GET /v1/models": (200, {"data": [{"id": "tiny"}]}),
    "POST /v1/chat/completions": (
        200,
        {"choices": [{"message": {"role": "assistant", "content": "hello"}}]},
    ),
    "GET /readyz": (200, {}),
}
NOT_READY = {"error": {"message": "no replica is ready", "code": "no_replica_ready"}}


class Server(ThreadingHTTPServer):
    """Answers what the test has told it; remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = dict(ANSWERS)
        self.asked: list[tuple[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        line = f"{self.command} {self.path}"
        self.server.asked.append((line, json.loads(body or b"null")))
        status, answer = self.server.answers[line]
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def command(helm: Helm, *settings: str) -> list[str]:
    (container,) = only(helm.template(*settings), "Pod")["spec"]["containers"]
    words: list[str] = container["command"]
    return words


def run(helm: Helm, url: str) -> subprocess.CompletedProcess[str]:
    interpreter, *words, _ = command(helm)
    assert interpreter == "python"
    return subprocess.run(
        [sys.executable, *words, url], capture_output=True, text=True, check=False
    )


def test_one_chat_completion_is_sent_to_the_served_model(helm: Helm, server: Server) -> None:
    done = run(helm, server.url)
    assert (done.returncode, done.stdout) == (0, f"tiny at {server.url}: 'hello'\n")
    (line, body) = server.asked[-1]
    assert line == "POST /v1/chat/completions"
    assert body["model"] == "tiny"
    assert len(server.asked) == 2


def test_refusal_ends_it_with_the_servers_words(helm: Helm, server: Server) -> None:
    server.answers["POST /v1/chat/completions"] = (503, NOT_READY)
    done = run(helm, server.url)
    assert done.returncode == 1
    assert "503" in done.stderr
    assert "no replica is ready" in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_there_ends_it_in_one_line(helm: Helm, server: Server) -> None:
    url = server.url
    server.socket.close()
    done = run(helm, url)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_operator_is_asked_whether_it_is_ready(helm: Helm, server: Server) -> None:
    assert run(helm, f"{server.url}/readyz").returncode == 0
    server.answers["GET /readyz"] = (503, {})
    assert run(helm, f"{server.url}/readyz").returncode == 1


URLS = {
    "operator": ((), "http://ascend-serving-operator:8080/readyz"),
    "deployment": (
        ("test.servingDeployment=qwen",),
        "http://qwen.ascend-serving-system.svc:80",
    ),
    "deployment elsewhere": (
        ("test.servingDeployment=qwen", "test.namespace=models", "test.port=8000"),
        "http://qwen.models.svc:8000",
    ),
}


@pytest.mark.parametrize(("settings", "url"), URLS.values(), ids=URLS)
def test_question_goes_where_the_values_say(
    helm: Helm, settings: tuple[str, ...], url: str
) -> None:
    assert command(helm, *settings)[-1] == url
