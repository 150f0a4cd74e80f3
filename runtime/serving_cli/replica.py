"""`ascend-serving replica`: what a replica pod runs."""

from __future__ import annotations

import asyncio
import os

from serving_cli import options
from serving_cli.errors import CommandFailed, UsageError
from serving_cli.flags import Given, topology_of
from serving_contract.errors import ContractError
from serving_http.auth import FixedApiKeys
from serving_runtime.config import EngineConfig
from serving_runtime.errors import Refused, RuntimeFailure
from serving_runtime.server import ServerSettings, run_replica


def run(given: Given) -> int:
    """Serve until a signal comes and the drain is over.

    Raises:
        UsageError: a wrong flag, a model that cannot be served, a port in use.
        CommandFailed: the worker died.
    """
    try:
        config = options.engine_config(given, topology_of(given), 0)
        config.check()
    except (ContractError, Refused) as error:
        raise UsageError(str(error)) from error
    keys = options.api_keys(given, os.environ)
    direct = ("host", "port", "drain_timeout_s")
    settings = ServerSettings(
        api_keys=FixedApiKeys(keys) if keys else None,
        limits=options.limits(given),
        tls=options.tls(given),
        **{name: given[name] for name in direct if name in given},  # type: ignore[arg-type]
    )
    return serve(config, settings)


def serve(config: EngineConfig, settings: ServerSettings) -> int:
    """Run one replica and turn its errors into the command line's."""
    try:
        asyncio.run(run_replica(config, settings))
    except Refused as error:
        raise UsageError(str(error)) from error
    except RuntimeFailure as error:
        raise CommandFailed(str(error)) from error
    return 0
