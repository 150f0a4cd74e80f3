"""Every refusal is exit 2 and one line that names what is wrong."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., tuple[int, str, str]]

FLAGS = {
    "no command": ([], "COMMAND"),
    "unknown command": (["swerve"], "invalid choice: 'swerve'"),
    "unknown flag": (["serve", "MODEL", "--no-such-flag"], "--no-such-flag"),
    "abbreviated flag": (["serve", "MODEL", "--dev", "0"], "--dev"),
    "no model": (["serve"], "MODEL is missing"),
    "two models": (["serve", "MODEL", "--model", "MODEL"], "MODEL is given twice"),
    "too few devices": (
        ["serve", "MODEL", "--devices", "0,1,2", "--dp", "2", "--tp", "2"],
        "--devices names 3 devices, but --dp 2 x --tp 2 needs 4",
    ),
    "device named twice": (
        ["serve", "MODEL", "--devices", "1,1", "--dp", "2"],
        "device 1 is named twice",
    ),
    "devices that are no numbers": (["serve", "MODEL", "--devices", "a"], "--devices: 'a' is"),
    "range that runs backwards": (["serve", "MODEL", "--devices", "3-1"], "runs backwards"),
    "dp of 0": (["serve", "MODEL", "--dp", "0"], "--dp 0 is outside 1..512"),
    "dp below 0": (["serve", "MODEL", "--dp", "-1"], "'-1' is not an integer"),
    "dp that is no number": (["serve", "MODEL", "--dp", "two"], "'two' is not an integer"),
    "tp above 64": (["serve", "MODEL", "--tp", "65"], "--tp 65 is outside 1..64"),
    "tp": (["serve", "MODEL", "--tp", "2"], "--tp 2: tensor parallelism is not implemented yet"),
    "topology before backend": (
        ["serve", "MODEL", "--device", "npu", "--devices", "0,0", "--dp", "2"],
        "device 0 is named twice",
    ),
    "npu": (["serve", "MODEL", "--device", "npu"], "--device npu: "),
    "cuda": (["replica", "MODEL", "--device", "cuda"], "--device cuda: "),
    "hub": (["serve", "hf://org/name"], "hf://org/name: "),
    "unknown device": (["serve", "MODEL", "--device", "tpu"], "invalid choice: 'tpu'"),
    "unknown dtype": (["serve", "MODEL", "--dtype", "fp8"], "invalid choice: 'fp8'"),
    "unknown policy": (["serve", "MODEL", "--policy", "random"], "invalid choice: 'random'"),
    "context beyond the model's": (
        ["serve", "MODEL", "--max-model-len", "2049"],
        "--max-model-len 2049: the model's own limit (max_position_embeddings) is 2048",
    ),
    "port above 65535": (["serve", "MODEL", "--port", "70000"], "'70000' is not a port"),
    "memory fraction of 0": (
        ["serve", "MODEL", "--device-memory-fraction", "0"],
        "'0' is not a number above 0 and at most 1",
    ),
    "empty key": (["serve", "MODEL", "--api-key", ""], "--api-key is empty"),
    "certificate without key": (
        ["serve", "MODEL", "--tls-cert", "cert.pem"],
        "--tls-cert and --tls-key go together",
    ),
    "certificate that is missing": (
        ["serve", "MODEL", "--tls-cert", "/none.pem", "--tls-key", "/none.pem"],
        "/none.pem: No such file",
    ),
    "ttl without header": (
        ["serve", "MODEL", "--session-affinity-ttl-seconds", "5"],
        "needs --session-affinity-header",
    ),
    "header that is none": (
        ["serve", "MODEL", "--session-affinity-header", "a b"],
        "'a b' is not the name of a header",
    ),
    "keys folder that is missing": (
        ["serve", "MODEL", "--api-keys-dir", "/none"],
        "--api-keys-dir /none: no such folder",
    ),
    "unknown host": (["serve", "MODEL", "--host", "256.0.0.1"], "--host 256.0.0.1"),
    "host that is not ours": (
        ["serve", "MODEL", "--host", "192.0.2.1"],
        "--host 192.0.2.1 --port 8000: Cannot assign",
    ),
    "router without replicas": (
        ["router"],
        "one of the arguments --replicas --service is required",
    ),
    "router with a list and a Service": (
        ["router", "--replicas", "http://a:1", "--service", "m"],
        "argument --service: not allowed with argument --replicas",
    ),
    "router with a list and a namespace": (
        ["router", "--replicas", "http://a:1", "--namespace", "ns"],
        "--namespace goes with --service, not with --replicas",
    ),
    "router with a list and a kubeconfig": (
        ["router", "--replicas", "http://a:1", "--kubeconfig", "/none"],
        "--kubeconfig goes with --service, not with --replicas",
    ),
    "router with a namespace alone": (
        ["router", "--namespace", "ns"],
        "one of the arguments --replicas --service is required",
    ),
    "router with a Service outside a cluster": (
        ["router", "--service", "m", "--namespace", "ns"],
        "KUBERNETES_SERVICE_HOST is not set, so this is no pod; outside a cluster name a",
    ),
    "router with a Service that is no name": (
        ["router", "--service", "m/replicas"],
        "argument --service: 'm/replicas' is not a DNS label of at most 63 characters",
    ),
    "router with a namespace that is no name": (
        ["router", "--service", "m", "--namespace", "a" * 64],
        "is not a DNS label of at most 63 characters",
    ),
    "router with a kubeconfig that is missing": (
        ["router", "--service", "m", "--kubeconfig", "/none"],
        "--kubeconfig /none: No such file or directory",
    ),
    "router with a wrong address": (
        ["router", "--replicas", "localhost"],
        "'localhost' is not of the form http://HOST:PORT",
    ),
    "prefix caching": (["serve", "MODEL", "--no-prefix-caching"], "--no-prefix-caching"),
    "generate without input": (["generate", "MODEL"], "--input"),
}


@pytest.mark.parametrize(("arguments", "complaint"), FLAGS.values(), ids=FLAGS.keys())
def test_wrong_flag_is_one_line_and_exit_2(
    cli: Cli,
    tiny: Path,
    arguments: list[str],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)  # these tests may run in a pod
    code, out, err = cli(*(str(tiny) if part == "MODEL" else part for part in arguments))
    assert (code, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1


KUBECONFIG = """
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {USER}}]
"""


def test_namespace_that_nobody_names_is_missed(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(KUBECONFIG.replace("USER", "token: t"))
    code, _, err = cli("router", "--service", "m", "--kubeconfig", tmp_path / "config")
    assert (code, err.count("\n")) == (2, 1)
    assert "--namespace is missing: name the namespace of the Service" in err


def test_kubeconfig_with_a_plugin_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(KUBECONFIG.replace("USER", "exec: {command: login}"))
    code, _, err = cli("router", "--service", "m", "--kubeconfig", tmp_path / "config")
    assert (code, err.count("\n")) == (2, 1)
    assert "user 'u': exec is not understood here; use token" in err


def test_keys_folder_that_lets_nobody_in_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "alice").write_text("\n")
    code, _, err = cli("router", "--replicas", "http://127.0.0.1:1", "--api-keys-dir", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "holds no key; if a Secret is mounted there, does it exist?" in err


@pytest.mark.parametrize("command", ["serve", "replica"])
def test_missing_model_folder_is_named(cli: Cli, command: str) -> None:
    code, _, err = cli(command, "/no/such/model")
    assert (code, err.count("\n")) == (2, 1)
    assert "/no/such/model" in err


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", b"{", "config.json cannot be read"),
        ("config.json", b"[]", "config.json is not a JSON object"),
        ("model.safetensors", None, "no *.safetensors"),
        ("model.safetensors", b"", "model.safetensors is corrupt"),
        ("model.safetensors", b"\xff" * 100, "model.safetensors is corrupt"),
    ],
    ids=["no config", "torn config", "config is a list", "no weights", "empty", "garbage"],
)
def test_corrupt_model_folder_is_named(
    cli: Cli, tiny: Path, tmp_path: Path, file: str, content: bytes | None, complaint: str
) -> None:
    for original in tiny.iterdir():
        (tmp_path / original.name).write_bytes(original.read_bytes())
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    code, _, err = cli("serve", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert complaint in err


def test_truncated_weights_are_named(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    for original in tiny.iterdir():
        (tmp_path / original.name).write_bytes(original.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    code, _, err = cli("serve", tmp_path)
    assert code == 2
    assert "cut off" in err


@pytest.mark.parametrize("command", ["serve", "replica"])
def test_port_in_use_is_named(cli: Cli, tiny: Path, command: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, _, err = cli(command, tiny, "--port", str(port))
    assert (code, err.count("\n")) == (2, 1)
    assert str(port) in err
    assert "in use" in err


def test_key_is_never_repeated_in_a_complaint(cli: Cli, tiny: Path) -> None:
    _, _, err = cli("serve", tiny, "--api-key", "s3cret", "--dp", "0")
    assert "s3cret" not in err


INPUTS = {
    "not JSON": (b"{", "line 1: not JSON"),
    "a bare string": (b'"hello"', "line 1: must be an object"),
    "neither prompt nor messages": (b"{}", "line 1: must be an object"),
    "both": (json.dumps({"prompt": "a", "messages": []}).encode(), "line 1: must be an object"),
    "a stream": (b'{"prompt": "a"}\n\n{"prompt": "a", "stream": true}', "line 3: `stream`"),
}


@pytest.mark.parametrize(("content", "complaint"), INPUTS.values(), ids=INPUTS.keys())
def test_wrong_input_line_is_named_before_anything_starts(
    cli: Cli, tiny: Path, tmp_path: Path, content: bytes, complaint: str
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_bytes(content)
    code, _, err = cli("generate", tiny, "--input", prompts, "--output", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert complaint in err


def test_existing_output_is_not_overwritten(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    prompts, output = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    prompts.write_text('{"prompt": "a"}')
    output.write_text("precious")
    code, _, err = cli("generate", tiny, "--input", prompts, "--output", output)
    assert (code, output.read_text()) == (2, "precious")
    assert "exists already" in err
