"""The two ways to an API server: as a pod, and by a kubeconfig."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from serving_router.api_access import InCluster
from serving_router.errors import InvalidAccess
from serving_router.kubeconfig import Kubeconfig

Config = dict[str, Any]
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def folder(tmp_path: Path, authority: trustme.CA) -> Path:
    """A ServiceAccount's folder as Kubernetes mounts it."""
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("one\n")
    (tmp_path / "namespace").write_text("ours")
    return tmp_path


SERVERS = {
    "IPv4": ("10.96.0.1", "443", "https://10.96.0.1:443"),
    "IPv6": ("fd00::1", "6443", "https://[fd00::1]:6443"),
}


@pytest.mark.parametrize(("host", "port", "server"), SERVERS.values(), ids=SERVERS.keys())
def test_pod_finds_its_api_server(folder: Path, host: str, port: str, server: str) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    in_cluster = InCluster(environment, folder)
    access = in_cluster.read()
    assert (access.server, access.token, in_cluster.namespace) == (server, "one", "ours")
    assert access.tls is not None
    assert access.tls.verify_mode is ssl.CERT_REQUIRED
    assert len(access.tls.get_ca_certs()) == 1


def test_token_and_authority_are_read_each_time(folder: Path) -> None:
    in_cluster = InCluster({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, folder)
    in_cluster.read()
    (folder / "token").write_text("two")
    trustme.CA().cert_pem.write_to_path(folder / "ca.crt", append=True)
    access = in_cluster.read()
    assert access.token == "two"
    assert access.tls is not None
    assert len(access.tls.get_ca_certs()) == 2


def test_pod_without_a_token_is_an_os_error(folder: Path) -> None:
    (folder / "token").unlink()
    with pytest.raises(FileNotFoundError):
        InCluster({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, folder).read()


def test_pod_without_a_namespace_has_none(folder: Path) -> None:
    (folder / "namespace").unlink()
    assert InCluster({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, folder).namespace is None


def test_process_outside_a_cluster_is_told_what_to_do() -> None:
    with pytest.raises(InvalidAccess, match="name a --kubeconfig"):
        InCluster({})


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a kubeconfig of one context; JSON is YAML."""

    def write(
        user: Config | None = None,
        *,
        cluster: Config | None = None,
        context: Config | None = None,
        whole: Config | None = None,
    ) -> Path:
        content = {
            "current-context": "dev",
            "contexts": [
                {"name": "other", "context": {"cluster": "o", "user": "o"}},
                {"name": "dev", "context": {"cluster": "c", "user": "u", **(context or {})}},
            ],
            "clusters": [
                {"name": "c", "cluster": {"server": "https://h:6443/", **(cluster or {})}}
            ],
            "users": [{"name": "o", "user": {"exec": {}}}, {"name": "u", "user": user or {}}],
        } | (whole or {})
        file = tmp_path / "config"
        file.write_text(json.dumps(content))
        return file

    return write


def test_token_is_taken(write: Write) -> None:
    access = Kubeconfig(write({"token": "t"})).read()
    assert (access.server, access.token) == ("https://h:6443", "t")


def test_file_of_a_token_is_read_each_time_and_found_beside_the_kubeconfig(
    write: Write, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("one\n")
    kubeconfig = Kubeconfig(write({"tokenFile": "token"}))
    assert kubeconfig.read().token == "one"
    (tmp_path / "token").write_text("two\n")
    assert kubeconfig.read().token == "two"


@pytest.mark.parametrize("inline", [True, False], ids=["data", "file"])
def test_authority_is_trusted_alone(
    write: Write, tmp_path: Path, authority: trustme.CA, inline: bool
) -> None:
    pem = authority.cert_pem.bytes()
    (tmp_path / "ca.crt").write_bytes(pem)
    data = {"certificate-authority-data": base64.b64encode(pem).decode()}
    named = {"certificate-authority": "ca.crt"}
    tls = Kubeconfig(write(cluster=data if inline else named)).read().tls
    assert tls is not None
    assert len(tls.get_ca_certs()) == 1
    assert tls.check_hostname


@pytest.mark.parametrize("inline", [True, False], ids=["data", "files"])
def test_client_certificate_is_loaded(
    write: Write, tmp_path: Path, authority: trustme.CA, inline: bool
) -> None:
    pair = authority.issue_cert("admin")
    certificate, key = pair.cert_chain_pems[0].bytes(), pair.private_key_pem.bytes()
    (tmp_path / "admin.crt").write_bytes(certificate)
    (tmp_path / "admin.key").write_bytes(key)
    data = {
        "client-certificate-data": base64.b64encode(certificate).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }
    named = {"client-certificate": "admin.crt", "client-key": "admin.key"}
    access = Kubeconfig(write(data if inline else named)).read()
    assert (access.token, access.tls is not None) == (None, True)


def test_plain_http_needs_no_authority(write: Write) -> None:
    assert Kubeconfig(write(cluster={"server": "http://127.0.0.1:1"})).read().tls is None


@pytest.mark.parametrize("namespace", [None, "team"])
def test_namespace_is_the_contexts(write: Write, namespace: str | None) -> None:
    context = {"namespace": namespace} if namespace else {}
    assert Kubeconfig(write(context=context)).namespace == namespace


REFUSED: dict[str, tuple[Config, str]] = {
    "exec plugin": ({"user": {"exec": {"command": "aws"}}}, "user 'u': exec is not understood"),
    "password": (
        {"user": {"username": "a", "password": "b"}},
        "user 'u': username is not understood here; use token, tokenFile or a client certificate",
    ),
    "no verification": (
        {"cluster": {"insecure-skip-tls-verify": True}},
        "cluster 'c': insecure-skip-tls-verify is not understood",
    ),
    "server that is none": ({"cluster": {"server": "h:6443"}}, "cluster 'c': server: "),
    "no such context": ({"whole": {"current-context": "prod"}}, "it has no context named 'prod'"),
    "no such user": ({"context": {"user": "x"}}, "it has no user named 'x'"),
    "no contexts": ({"whole": {"contexts": None}}, "contexts: "),
    "data that is not base64": (
        {"cluster": {"certificate-authority-data": "!"}},
        "data that is not base64",
    ),
}


@pytest.mark.parametrize(("changes", "complaint"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_understood_is_refused_by_name(
    write: Write, changes: dict[str, Config], complaint: str
) -> None:
    file = write(changes.pop("user", None), **changes)
    with pytest.raises(InvalidAccess) as raised:
        Kubeconfig(file)
    assert str(raised.value).startswith(f"--kubeconfig {file}: ")
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["{", "just text", ""], ids=["torn", "no object", "empty"])
def test_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(InvalidAccess):
        Kubeconfig(tmp_path / "config")


def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Kubeconfig(tmp_path / "none")
