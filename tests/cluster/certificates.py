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
        service_accounts_key: signs the tokens of service accounts.
    """

    ca: Path
    server: Path
    server_key: Path
    service_accounts_key: Path


def make_certificates(folder: Path) -> Certificates:
    """Write an authority, a certificate for this machine's own addresses, and a signing key."""
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1", "kubernetes.default.svc")
    made = Certificates(
        ca=folder / "ca.crt",
        server=folder / "apiserver.crt",
        server_key=folder / "apiserver.key",
        service_accounts_key=folder / "service-accounts.key",
    )
    authority.cert_pem.write_to_path(made.ca)
    server.cert_chain_pems[0].write_to_path(made.server)
    server.private_key_pem.write_to_path(made.server_key)
    signer = authority.issue_cert("service-accounts.invalid")
    signer.private_key_pem.write_to_path(made.service_accounts_key)
    return made
