"""How the API server is reached: the kubeconfig, or the pod's own account.

The `kubernetes` package reads both, also exec plugins and rotating tokens; its typed client is not
used, because it drops fields that it does not know.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kubernetes import config
from kubernetes.client import Configuration

from serving_operator.errors import OperatorError

_IN_CLUSTER: Final = "KUBERNETES_SERVICE_HOST"


class NoAccess(OperatorError):
    """Neither a kubeconfig nor a pod's account is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One API server.

    Attributes:
        server: its address without a trailing slash.
        tls: None for plain HTTP.
        authorization: returns the header's value now; tokens rotate. Empty if there is none.
        namespace: that the kubeconfig's context names.
    """

    server: str
    tls: ssl.SSLContext | None
    authorization: Callable[[], str]
    namespace: str = "default"


def load() -> Access:
    """Read how to reach the API server: the pod's account where there is one, as kopf does.

    Raises:
        NoAccess: there is nothing to read, or it cannot be read.
    """
    configuration = Configuration()
    namespace = "default"
    try:
        if os.environ.get(_IN_CLUSTER):
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            namespace = _namespace()
    except (config.ConfigException, OSError) as error:
        raise NoAccess(f"no cluster: {error}; set KUBECONFIG or run in a pod") from error
    return Access(
        server=configuration.host.rstrip("/"),
        tls=_tls(configuration) if configuration.host.startswith("https:") else None,
        authorization=lambda: _authorization(configuration),
        namespace=namespace,
    )


def _namespace() -> str:
    _, active = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
    return str(active["context"].get("namespace") or "default")


def _authorization(configuration: Configuration) -> str:
    auth = configuration.auth_settings().get("BearerToken")
    return str(auth["value"]) if auth and auth["value"] else ""


def _tls(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    # Set by default from Python 3.13 on; the authorities of many clusters lack what it asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
