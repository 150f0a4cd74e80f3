"""What the pod of `helm test` runs, as its command says, against a server of the test's own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import pytest
from tests.charts.helm import Helm
from tests.manifests.documents import only

MODELS: Final = "GET /v1/models"
LIMIT: Final = "LIMIT_S = 120\n"
ANSWERS: dict[str, tuple[int, Any]] = {
    MODELS: (200, {"data": [{"id": "tiny"}]}),
    "POST /v1/chat/completions": (
        200,
        {"choices": [{"message": {"role": "assistant", "content": "hello"}}]},
    ),
    "GET /readyz": (200, {}),
}
NOT_READY = {"error": {"message": "no replica is ready", "code": "no_replica_ready"}}


class Server(ThreadingHTTPServer):
    """Answers what the test has told it, text or JSON; remembers what it was asked.

    It has an address at once and refuses connections until it listens.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.server_bind()
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
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def listening(server: Server) -> Iterator[None]:
    server.server_activate()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield
    server.shutdown()
    thread.join()


@pytest.fixture
def starting() -> Iterator[Server]:
    """A server that does not listen yet."""
    with Server() as server:
        yield server


@pytest.fixture
def server(starting: Server) -> Iterator[Server]:
    with listening(starting):
        yield starting


def command(helm: Helm, *settings: str) -> list[str]:
    (container,) = only(helm.template(*settings), "Pod")["spec"]["containers"]
    words: list[str] = container["command"]
    return words


def question(helm: Helm, url: str, limit_s: int = 120) -> list[str]:
    """Return what the pod runs, for another address and with another limit."""
    interpreter, option, program, _ = command(helm)
    assert interpreter == "python"
    assert LIMIT in program
    program = program.replace(LIMIT, f"LIMIT_S = {limit_s}\n")
    return [sys.executable, option, program, url]


def run(helm: Helm, url: str, limit_s: int = 120) -> subprocess.CompletedProcess[str]:
    words = question(helm, url, limit_s)
    return subprocess.run(words, capture_output=True, text=True, check=False)


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


def test_nobody_there_ends_it_in_one_line_at_its_limit(helm: Helm, starting: Server) -> None:
    done = run(helm, starting.url, limit_s=2)
    assert done.returncode == 1
    assert "trying again" in done.stdout
    (line,) = done.stderr.splitlines()
    assert "Connection refused" in line
    assert "tried for 2 s" in line


def test_server_that_starts_late_is_asked_again(helm: Helm, starting: Server) -> None:
    words = question(helm, starting.url)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        assert "Connection refused" in asking.stdout.readline()
        with listening(starting):
            said = asking.communicate()[0].splitlines()
    assert (asking.returncode, said[-1]) == (0, f"tiny at {starting.url}: 'hello'")


STRANGE: dict[str, Any] = {
    "no model": {"data": []},
    "an error object": {"error": {"message": "no such page"}},
    "a list": [],
    "null": {"data": None},
    "a web page": "<html>\n<body>It works!</body>\n</html>\n",
}


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
def test_strange_answer_ends_it_in_one_line_that_shows_it(
    helm: Helm, server: Server, answer: Any
) -> None:
    server.answers[MODELS] = (200, answer)
    done = run(helm, server.url)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    shown = " ".join((answer if isinstance(answer, str) else json.dumps(answer)).split())
    assert line == f"{server.url}/v1/models: not the answer of an OpenAI API: {shown}"


def test_server_of_another_protocol_ends_it_in_one_line(helm: Helm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with subprocess.Popen(question(helm, url), stderr=subprocess.PIPE, text=True) as asking:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
            said = asking.communicate()[1]
    assert asking.returncode == 1
    (line,) = said.splitlines()
    assert "this is no HTTP" in line
    assert "SSH-2.0" in line


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
