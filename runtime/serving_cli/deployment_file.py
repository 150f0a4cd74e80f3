"""A ServingDeployment from a file, for this machine.

What a cluster would do and one machine cannot is refused where it matters (volumes, Secrets,
devices that are not here) and named in one line where it does not (images, rollout, Service).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from serving_cli.errors import UsageError
from serving_cli.flags import Given, Parser, add_engine
from serving_contract.deployment import (
    EngineKind,
    NodeLost,
    Rollout,
    Router,
    Service,
    ServingDeployment,
    Spec,
)
from serving_contract.errors import InvalidDeployment
from serving_contract.kubernetes import CPU_RESOURCE

FROM_FILE: Final = (
    "model",
    "positional_model",
    "served_name",
    "dp",
    "tp",
    "device",
    "dtype",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "device_memory_fraction",
    "policy",
    "max_pending_tokens_per_replica",
    "session_affinity_header",
    "session_affinity_ttl_seconds",
)
"""Flags that `-f` replaces."""


def read_deployment(file: Path) -> ServingDeployment:
    """Read the file.

    Raises:
        UsageError: it cannot be read or is not a ServingDeployment.
    """
    from serving_contract.deployment import parse_deployment

    try:
        return parse_deployment(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except (InvalidDeployment, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}") from error


def flags_of(deployment: ServingDeployment) -> Given:
    """Return what the file says, by the names that flags fill.

    Raises:
        UsageError: this machine cannot serve it.
    """
    spec = deployment.spec
    _check_servable(spec)
    engine, router = spec.engine, spec.router
    given: Given = {
        "model": spec.model.uri,
        "served_name": deployment.served_name,
        "dp": spec.parallelism.data_parallel_size,
        "tp": spec.parallelism.tensor_parallel_size,
        "device": "cpu",
        "dtype": engine.dtype,
        "max_model_len": engine.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "max_num_batched_tokens": engine.max_num_batched_tokens,
        "device_memory_fraction": float(engine.device_memory_fraction),
        "policy": router.policy.value,
        "max_pending_tokens_per_replica": router.max_pending_tokens_per_replica,
    }
    if router.session_affinity is not None:
        given["session_affinity_header"] = router.session_affinity.header
        given["session_affinity_ttl_seconds"] = router.session_affinity.ttl_seconds
    return given | _engine_args(engine.args)


def cluster_only(spec: Spec) -> list[str]:
    """Return the fields that were set and that only a cluster would use."""
    router = spec.router
    given = {
        "engine.image": spec.engine.image is not None,
        "template": spec.template is not None,
        "router.replicas": router.replicas is not None,
        "router.image": router.image is not None,
        "router.service": router.service != Service(),
        "router.template": router.template is not None,
        "rollout": spec.rollout != Rollout(),
        "nodeLost": spec.node_lost != NodeLost(),
        "paused": spec.paused,
    }
    return [field for field, is_given in given.items() if is_given]


def _check_servable(spec: Spec) -> None:
    if spec.model.uri.startswith("pvc://"):
        raise UsageError(f"model.uri {spec.model.uri}: no volumes here; give an /abs/path")
    if spec.engine.kind is not EngineKind.ASCEND_SERVING:
        raise UsageError(f"engine.kind {spec.engine.kind}: only AscendServing runs here")
    if spec.parallelism.data_parallel_size == 0:
        raise UsageError("parallelism.dataParallelSize 0: there is nothing to serve")
    _check_secrets(spec.model.secret_name, spec.router)
    if spec.devices.resource_name != CPU_RESOURCE:
        raise UsageError(
            f"devices.resourceName {spec.devices.resource_name}: "
            "none on this machine; set it to cpu"
        )


def _check_secrets(model_secret: str | None, router: Router) -> None:
    secrets = {
        "model.secretName": model_secret,
        "router.apiKeysSecretName": router.api_keys_secret_name,
        "router.tlsSecretName": router.tls_secret_name,
    }
    for field, name in secrets.items():
        if name is not None:
            raise UsageError(
                f"{field} {name}: no Secrets here; use --api-key, --tls-cert and --tls-key"
            )


def _engine_args(args: tuple[str, ...]) -> Given:
    """Read `engine.args`; they come last and win, as on the engine's own command line."""
    parser = Parser(prog="engine.args", add_help=False)
    add_engine(parser)
    return vars(parser.parse_args(list(args)))
