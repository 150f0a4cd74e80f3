"""Keys and certificates of a control plane, made anew for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Certificates:
    """Where the files are.

    Attributes:
        ca: what clients trust.
        server: the API server's and etcd's, with which the former also comes to the latter.
        service_accounts_key: signs the tokens of service accounts.
        kubelet_client: with it the API server asks kubelets for logs and the like.
    """

    ca: Path
    server: Path
    server_key: Path
    service_accounts_key: Path
    kubelet_client: Path
    kubelet_client_key: Path


def make_certificates(folder: Path, *addresses: str) -> Certificates:
    """Write an authority, what it certifies, and a signing key.

    The server's certificate is for this machine's own addresses, and `addresses`. The folder is
    its owner's alone from then on.
    """
    folder.chmod(0o700)
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1", "kubernetes.default.svc", *addresses)
    client = authority.issue_cert(
        "kubelet-client.invalid",  # one without names is not read by kubelets
        common_name="apiserver-kubelet-client",
        organization_name="system:masters",
    )
    made = Certificates(
        ca=folder / "ca.crt",
        server=folder / "apiserver.crt",
        server_key=folder / "apiserver.key",
        service_accounts_key=folder / "service-accounts.key",
        kubelet_client=folder / "kubelet-client.crt",
        kubelet_client_key=folder / "kubelet-client.key",
    )
    authority.cert_pem.write_to_path(made.ca)
    server.cert_chain_pems[0].write_to_path(made.server)
    server.private_key_pem.write_to_path(made.server_key)
    client.cert_chain_pems[0].write_to_path(made.kubelet_client)
    client.private_key_pem.write_to_path(made.kubelet_client_key)
    signer = authority.issue_cert("service-accounts.invalid")
    signer.private_key_pem.write_to_path(made.service_accounts_key)
    return made
