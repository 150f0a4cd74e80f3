"""`ascend-serving serve`: dp replica processes and the router, on this machine."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path

from serving_cli import local_service, options
from serving_cli.deployment_file import FROM_FILE, cluster_only, flags_of, read_deployment
from serving_cli.errors import UsageError, first_cause
from serving_cli.flags import Given
from serving_cli.listening import listen
from serving_cli.orders import replica_orders

_log = logging.getLogger(__name__)


def run(given: Given) -> int:
    """Serve until a signal comes.

    Raises:
        UsageError: a wrong flag, a model that cannot be served, a port in use.
        CommandFailed: a replica failed to start.
    """
    given = _with_file(given)
    orders = replica_orders(given)
    name = orders[0].config.served_name
    settings = options.router_settings(given | {"served_name": name}, os.environ)
    with listen(settings.host, settings.port) as listener:
        _log.info("listening on %s", _address(listener, tls=settings.tls is not None))
        try:
            asyncio.run(local_service.serve(orders, settings, listener))
        except BaseExceptionGroup as failures:
            raise first_cause(failures) from failures
    return 0


def _with_file(given: Given) -> Given:
    file = given.get("file")
    if not isinstance(file, Path):
        return given
    for flag in FROM_FILE:
        if flag in given:
            raise UsageError(f"{_spelled(flag)} and -f exclude each other: change it in {file}")
    deployment = read_deployment(file)
    if ignored := cluster_only(deployment.spec):
        print(f"{file}: only a cluster uses {', '.join(ignored)}", file=sys.stderr)  # noqa: T201
    return given | flags_of(deployment)


def _spelled(flag: str) -> str:
    names = {"positional_model": "MODEL", "served_name": "--served-model-name"}
    return names.get(flag, f"--{flag.replace('_', '-')}")


def _address(listener: socket.socket, *, tls: bool) -> str:
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{name}:{port}"
