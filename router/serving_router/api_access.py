"""The way to the API server: address, certificate authority and token.

Read anew for each connection: tokens of service accounts are replaced about every hour, authorities
now and then, and reading them costs nothing beside a handshake.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from serving_router.errors import InvalidAccess

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts a pod's own credentials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What one connection needs.

    Attributes:
        server: `https://host:port`, maybe with a path, without a trailing slash.
        token: None with a client certificate.
        tls: None for plain HTTP.
    """

    server: str
    token: str | None
    tls: ssl.SSLContext | None


class AccessSource(Protocol):
    """Knows the way in."""

    @property
    def namespace(self) -> str | None:
        """The namespace that is ours when none is named."""
        ...

    def read(self) -> Access:
        """Return what is valid now.

        Raises:
            OSError: a file cannot be read.
            InvalidAccess: it can be, but is not understood.
        """
        ...


class InCluster:
    """As Kubernetes tells each pod.

    Raises:
        InvalidAccess: this process is in no pod.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> None:
        host = environment.get("KUBERNETES_SERVICE_HOST")
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise InvalidAccess(
                "--service: KUBERNETES_SERVICE_HOST is not set, so this is no pod; "
                "outside a cluster name a --kubeconfig"
            )
        self._server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._folder = folder

    @property
    def namespace(self) -> str | None:
        """The pod's own."""
        try:
            return (self._folder / "namespace").read_text().strip() or None
        except OSError:
            return None

    def read(self) -> Access:
        """Return what is valid now.

        Raises:
            OSError: a file cannot be read.
        """
        return Access(
            server=self._server,
            token=(self._folder / "token").read_text().strip(),
            tls=trusting(cafile=self._folder / "ca.crt"),
        )


def trusting(*, cafile: Path | None = None, cadata: str | None = None) -> ssl.SSLContext:
    """Trust this authority alone; with none given, those of the system.

    Raises:
        OSError: it cannot be read, or (`ssl.SSLError`) is no certificate.
    """
    context = ssl.create_default_context(cafile=cafile, cadata=cadata)
    # Set by default from Python 3.13 on; the authorities of many clusters lack what it asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
