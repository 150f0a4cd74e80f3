"""`ascend-serving operator`: what the operator's pod runs."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket

from serving_cli.errors import CommandFailed, UsageError
from serving_cli.flags import Given
from serving_cli.images import defaults_of
from serving_operator.settings import Settings


def run(given: Given) -> int:
    """Operate until a signal comes.

    Raises:
        UsageError: no cluster, or a port in use.
        CommandFailed: the watches ended.
    """
    try:
        from serving_operator.access import NoAccess, load
        from serving_operator.run import Operator
    except ImportError as error:
        raise UsageError(f"operator needs ascend-serving[operator]: {error}") from error
    _check_scope(given)
    try:
        access = load()
    except NoAccess as error:
        raise UsageError(str(error)) from error
    settings = settings_of(given, access.namespace)
    try:
        asyncio.run(Operator(settings, access).run())
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"--host {settings.host} --port {settings.port}: {reason}") from error
    except RuntimeError as error:
        raise CommandFailed(str(error)) from error
    return 0


def _check_scope(given: Given) -> None:
    if ("namespaces" in given) == ("all_namespaces" in given):
        raise UsageError("either --namespace NS (repeatable) or --all-namespaces is needed")


def settings_of(given: Given, namespace: str) -> Settings:
    """Read the flags, and the pod's name and namespace from its environment."""
    namespaces = given.get("namespaces")
    direct = {name: given[name] for name in ("host", "port") if name in given}
    random_name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    return Settings(
        defaults=defaults_of(given),
        namespaces=tuple(namespaces) if isinstance(namespaces, list) else (),
        lease_namespace=os.environ.get("POD_NAMESPACE") or namespace,
        identity=os.environ.get("POD_NAME") or random_name,
        **direct,  # type: ignore[arg-type]
    )
