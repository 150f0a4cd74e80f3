"""`ascend-serving router`: what a router pod runs."""

from __future__ import annotations

import asyncio
import os

from serving_cli import options
from serving_cli.errors import UsageError
from serving_cli.flags import Given
from serving_cli.listening import listen
from serving_router.app import run_router
from serving_router.discovery import StaticDiscovery, parse_replicas
from serving_router.errors import InvalidReplicas


def run(given: Given) -> int:
    """Route until a signal comes and the drain is over.

    Raises:
        UsageError: a wrong flag, or a port in use.
    """
    settings = options.router_settings(given, os.environ)
    try:
        discovery = StaticDiscovery(parse_replicas(str(given["replicas"])))
    except InvalidReplicas as error:
        raise UsageError(str(error)) from error
    with listen(settings.host, settings.port) as listener:
        asyncio.run(run_router(settings, discovery, listener=listener))
    return 0
