"""From the flags that were given to the dataclasses that the components take."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from serving_cli.errors import UsageError
from serving_cli.flags import Given
from serving_contract.deployment import Policy, SessionAffinity
from serving_contract.topology import Topology
from serving_runtime.config import DeviceKind, Dtype, EngineConfig, GenerationConfig
from serving_runtime.cores import usable_cores

if TYPE_CHECKING:
    from serving_http.limits import Limits
    from serving_http.tls import Tls
    from serving_router.settings import RouterSettings

API_KEYS_VARIABLE: Final = "ASCEND_SERVING_API_KEYS"
MIB: Final = 1024 * 1024
DEFAULT_MEMORY_FRACTION: Final = 0.9

_ENGINE_FIELDS: Final = frozenset(field.name for field in fields(EngineConfig))
_ENUMS: Final = {"device": DeviceKind, "dtype": Dtype, "generation_config": GenerationConfig}


def model_of(given: Given) -> str:
    """Return MODEL, given positionally or as a flag.

    Raises:
        UsageError: it was given twice or not at all.
    """
    positional, flag = given.get("positional_model"), given.get("model")
    if positional is not None and flag is not None:
        raise UsageError(f"MODEL is given twice: {positional} and --model {flag}")
    model = flag if positional is None else positional
    if not isinstance(model, str) or not model:
        raise UsageError("MODEL is missing: name a model folder")
    return model


def engine_config(given: Given, topology: Topology, replica_index: int) -> EngineConfig:
    """Return the configuration of one replica's engine; it is not checked yet."""
    model = model_of(given)
    settings = {name: value for name, value in given.items() if name in _ENGINE_FIELDS}
    settings |= {
        name: enum(str(settings[name])) for name, enum in _ENUMS.items() if name in settings
    }
    settings |= {
        "model": Path(model),
        "served_name": given.get("served_name") or Path(model).name or model,
        "devices": topology.groups[replica_index],
        "tensor_parallel_size": topology.tp,
        "threads": _threads(topology.dp, os.environ),
        "device_memory_fraction": _memory_fraction(given, topology.dp),
    }
    return EngineConfig(**settings)  # type: ignore[arg-type]


def _threads(replicas: int, environment: Mapping[str, str]) -> int | None:
    """Share the cores among the replicas of this machine, unless OpenMP was told how many."""
    if "OMP_NUM_THREADS" in environment:
        return None
    return max(1, usable_cores() // replicas)


def _memory_fraction(given: Given, replicas: int) -> float:
    """Share the host's memory: on the CPU it is the memory of every replica's device."""
    fraction = given.get("device_memory_fraction", DEFAULT_MEMORY_FRACTION)
    assert isinstance(fraction, float)
    return fraction / replicas


def api_keys(given: Given, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the keys from the flags, else from the environment.

    Raises:
        UsageError: a key is empty; it would open the API to everybody who sends none.
    """
    keys = given.get("api_keys")
    if keys is None:
        text = environment.get(API_KEYS_VARIABLE, "")
        return tuple(key for part in text.split(",") if (key := part.strip()))
    assert isinstance(keys, list)
    if not all(keys):
        raise UsageError("--api-key is empty")
    return tuple(keys)


def limits(given: Given) -> Limits:
    """Return what one connection may cost."""
    from serving_http.limits import Limits

    mib = given.get("max_body_mib")
    return Limits(max_body_bytes=mib * MIB) if isinstance(mib, int) else Limits()


def tls(given: Given) -> Tls | None:
    """Return certificate and key, or None for plain HTTP.

    Raises:
        UsageError: one is missing, or they cannot be used together.
    """
    from serving_http.tls import Tls, ssl_context

    cert, key = given.get("tls_cert"), given.get("tls_key")
    if cert is None and key is None:
        return None
    if not isinstance(cert, Path) or not isinstance(key, Path):
        raise UsageError("--tls-cert and --tls-key go together")
    pair = Tls(cert=cert, key=key)
    try:
        ssl_context(pair)
    except OSError as error:
        raise UsageError(f"--tls-cert {cert} --tls-key {key}: {_reason(error)}") from error
    return pair


def router_settings(given: Given, environment: Mapping[str, str]) -> RouterSettings:
    """Return the router's settings.

    Raises:
        UsageError: flags that do not fit together.
    """
    from serving_router.settings import RouterSettings

    if isinstance(keys_dir := given.get("api_keys_dir"), Path):
        _check_keys(keys_dir)
    direct = ("host", "port", "max_pending_tokens_per_replica", "drain_timeout_s", "api_keys_dir")
    settings = {name: given[name] for name in direct if name in given}
    if "policy" in given:
        settings["policy"] = Policy(str(given["policy"]))
    return RouterSettings(
        served_model_name=_optional_name(given),
        session_affinity=_session_affinity(given),
        api_keys=api_keys(given, environment),
        tls=tls(given),
        limits=limits(given),
        **settings,  # type: ignore[arg-type]
    )


def _check_keys(folder: Path) -> None:
    """Refuse a folder that lets nobody in; one that loses its keys later does just that."""
    from serving_router.api_keys import MountedApiKeys

    if not folder.is_dir():
        raise UsageError(f"--api-keys-dir {folder}: no such folder")
    try:
        keys = MountedApiKeys(folder).current()
    except OSError as error:
        raise UsageError(f"--api-keys-dir {folder}: {_reason(error)}") from error
    if not keys:
        raise UsageError(
            f"--api-keys-dir {folder}: holds no key; if a Secret is mounted there, does it exist?"
        )


def _optional_name(given: Given) -> str | None:
    name = given.get("served_name")
    return name if isinstance(name, str) else None


def _session_affinity(given: Given) -> SessionAffinity | None:
    header = given.get("session_affinity_header")
    ttl = given.get("session_affinity_ttl_seconds")
    if header is None:
        if ttl is not None:
            raise UsageError("--session-affinity-ttl-seconds needs --session-affinity-header")
        return None
    settings = {"header": header} if ttl is None else {"header": header, "ttl_seconds": ttl}
    try:
        return SessionAffinity.model_validate(settings)
    except ValidationError as error:
        raise UsageError(
            f"--session-affinity-header {header!r} is not the name of a header"
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
