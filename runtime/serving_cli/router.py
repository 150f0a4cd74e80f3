"""`ascend-serving router`: what a router pod runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from serving_cli import options
from serving_cli.errors import UsageError
from serving_cli.flags import Given
from serving_cli.listening import listen
from serving_router.api_access import AccessSource, InCluster
from serving_router.app import run_router
from serving_router.cluster_discovery import ClusterDiscovery
from serving_router.discovery import Discovery, StaticDiscovery, parse_replicas
from serving_router.errors import InvalidAccess, InvalidReplicas
from serving_router.kubeconfig import Kubeconfig
from serving_router.slices_api import SlicesApi


def run(given: Given) -> int:
    """Route until a signal comes and the drain is over.

    Raises:
        UsageError: a wrong flag, or a port in use.
    """
    settings = options.router_settings(given, os.environ)
    discovery = _discovery(given, os.environ)
    with listen(settings.host, settings.port) as listener:
        asyncio.run(run_router(settings, discovery, listener=listener))
    return 0


def _discovery(given: Given, environment: Mapping[str, str]) -> Discovery:
    try:
        if "service" in given:
            return ClusterDiscovery(_slices(given, environment))
        for flag in ("namespace", "kubeconfig"):
            if flag in given:
                raise UsageError(f"--{flag} goes with --service, not with --replicas")
        return StaticDiscovery(parse_replicas(str(given["replicas"])))
    except (InvalidReplicas, InvalidAccess) as error:
        raise UsageError(str(error)) from error


def _slices(given: Given, environment: Mapping[str, str]) -> SlicesApi:
    access = _access(given, environment)
    namespace = given.get("namespace") or access.namespace
    if namespace is None:
        raise UsageError("--namespace is missing: name the namespace of the Service")
    return SlicesApi(access, namespace=str(namespace), service=str(given["service"]))


def _access(given: Given, environment: Mapping[str, str]) -> AccessSource:
    file = given.get("kubeconfig")
    if not isinstance(file, Path):
        return InCluster(environment)
    try:
        return Kubeconfig(file)
    except OSError as error:
        raise UsageError(f"--kubeconfig {file}: {error.strerror or error}") from error
