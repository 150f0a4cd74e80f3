"""`replica` and `router` as two commands, with keys, TLS and session affinity."""

from __future__ import annotations

import contextlib
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import openai
import pytest
import trustme
from openai import OpenAI

WAIT_S = 120.0


@dataclass(frozen=True)
class Certificate:
    cert: Path
    key: Path
    authority: Path


@contextlib.contextmanager
def command(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "serving_cli.entry", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def wait_ready(url: str, process: subprocess.Popen[str], context: ssl.SSLContext | None) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"{url}/ready", timeout=5, context=context),
        ):
            return
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{url} is not ready"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    files = Certificate(folder / "cert.pem", folder / "key.pem", folder / "authority.pem")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(files.cert)
    issued.private_key_pem.write_to_path(files.key)
    authority.cert_pem.write_to_path(files.authority)
    return files


@pytest.fixture(scope="module")
def replica(tiny: Path) -> Iterator[str]:
    port = _port()
    url = f"http://127.0.0.1:{port}"
    with command("replica", tiny, "--port", str(port)) as process:
        wait_ready(url, process, None)
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_router_with_keys_and_tls_serves_the_official_client(
    replica: str, certificate: Certificate, tmp_path: Path
) -> None:
    (tmp_path / "alice").write_text("first-key\n")
    port = _port()
    url = f"https://127.0.0.1:{port}"
    context = ssl.create_default_context(cafile=str(certificate.authority))
    tls: list[str | Path] = ["--tls-cert", certificate.cert, "--tls-key", certificate.key]
    flags: list[str | Path] = ["--port", str(port), "--api-keys-dir", tmp_path, *tls]
    with command("router", "--replicas", replica, *flags) as process:
        wait_ready(url, process, context)
        with httpx2.Client(verify=context) as http:

            def ask(api_key: str) -> str:
                client = OpenAI(base_url=f"{url}/v1", api_key=api_key, http_client=http)
                answer = client.completions.create(model="tiny", prompt="a", max_tokens=4)
                return answer.choices[0].text

            assert ask("first-key")
            with pytest.raises(openai.AuthenticationError):
                ask("second-key")
            (tmp_path / "bob").write_text("second-key")
            _wait_until(lambda: _is_accepted(ask, "second-key"), "the new key")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        output = process.communicate()[0]
    assert "first-key" not in output
    assert "second-key" not in output


def test_router_learns_the_name_and_keeps_a_session_on_its_replica(replica: str) -> None:
    port = _port()
    url = f"http://127.0.0.1:{port}"
    flags = ["--port", str(port), "--session-affinity-header", "x-session-id"]
    with command("router", "--replicas", replica, *flags) as process:
        wait_ready(url, process, None)
        with OpenAI(base_url=f"{url}/v1", api_key="none") as client:
            raw = client.completions.with_raw_response.create(
                model="tiny", prompt="a", max_tokens=4, extra_headers={"x-session-id": "s"}
            )
        assert raw.headers["x-ascend-serving-replica"] == replica.removeprefix("http://")


def test_replica_with_a_key_refuses_those_without(tiny: Path) -> None:
    port = _port()
    url = f"http://127.0.0.1:{port}"
    with command("replica", tiny, "--port", str(port), "--api-key", "k") as process:
        wait_ready(url, process, None)
        with OpenAI(base_url=f"{url}/v1", api_key="k") as client:
            assert client.models.list().data[0].id == "tiny"
            with pytest.raises(openai.AuthenticationError):
                client.with_options(api_key="wrong").models.list()


def _is_accepted(ask: object, key: str) -> bool:
    assert callable(ask)
    try:
        return bool(ask(key))
    except openai.AuthenticationError:
        return False


def _wait_until(condition: object, what: str) -> None:
    assert callable(condition)
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
