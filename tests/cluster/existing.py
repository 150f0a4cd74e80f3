"""A cluster that was named to us, and that the tests may change: kind, minikube or the like."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml
from tests.cluster.api import Api, Body
from tests.cluster.cluster import Cluster
from tests.cluster.crds import apply_crds
from tests.cluster.errors import ApiRefused, ClusterUnavailable

VARIABLE: Final = "ASCEND_SERVING_TEST_KUBECONFIG"


def existing_cluster(environment: Mapping[str, str], folder: Path) -> Cluster | None:
    """Return the cluster that the environment names, if it names one; files go into `folder`.

    Raises:
        ClusterUnavailable: if the file cannot be read, or asks for what these tests cannot do.
    """
    named = environment.get(VARIABLE)
    if not named:
        return None
    try:
        cluster = _read(Path(named), folder)
    except (OSError, yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
        raise ClusterUnavailable(f"{VARIABLE}={named} is no kubeconfig: {error!r}") from error
    _check(cluster, named)
    return cluster


def _check(cluster: Cluster, named: str) -> None:
    try:
        apply_crds(cluster.api)
    except (OSError, ApiRefused) as error:
        raise ClusterUnavailable(f"{VARIABLE}={named} cannot be changed: {error}") from error


def _read(path: Path, folder: Path) -> Cluster:
    config = yaml.safe_load(path.read_text())
    context = _named(config["contexts"], config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config["users"], context["user"])["user"]
    ca = _content(cluster, "certificate-authority", path.parent).decode()
    tls = ssl.create_default_context(cadata=ca)
    token = user.get("token")
    if token is None:
        _present_certificate(tls, user, path, folder)
    return Cluster(
        url=cluster["server"],
        ca=ca,
        kubeconfig=path,
        api=Api(cluster["server"], tls, token),
        folder=folder,
        has_controllers=True,
    )


def _named(entries: list[Body], name: str) -> Body:
    return next(entry for entry in entries if entry["name"] == name)


def _content(entry: Body, field: str, beside: Path) -> bytes:
    if data := entry.get(f"{field}-data"):
        return base64.b64decode(data)
    return beside.joinpath(entry[field]).read_bytes()


def _present_certificate(tls: ssl.SSLContext, user: Body, path: Path, folder: Path) -> None:
    if not any(field.startswith("client-certificate") for field in user):
        raise ClusterUnavailable(
            f"{VARIABLE}={path} has neither a token nor a client certificate; "
            "name one that has, such as what kind and minikube write"
        )
    certificate, key = folder / "client.crt", folder / "client.key"
    certificate.write_bytes(_content(user, "client-certificate", path.parent))
    key.touch(mode=0o600)
    key.write_bytes(_content(user, "client-key", path.parent))
    tls.load_cert_chain(certificate, key)
