"""Engine kinds as rows of data: adding one is adding a row.

Flags of vLLM: its engine arguments, `--shutdown-timeout` since 0.18; vllm-ascend takes the same.
Flags of PyPTO: pypto-serving's own `--help`. Both number the devices of a container from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from serving_contract.deployment import EngineKind, Spec
from serving_contract.kubernetes import CPU_RESOURCE, PORT

MODEL_MOUNT: Final = "/model"
HUB: Final = "hf://"
CLAIM: Final = "pvc://"

Value = Callable[[Spec, str], str | None]
"""What a flag says for a spec and its served name; None leaves the flag out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow:
    """How one kind of engine is started and looked at.

    Attributes:
        command: None = the image's own entrypoint.
        flags: in this order; a flag named "" is a positional argument.
        environment: by the number of replicas.
        read_only_root: it writes nowhere but in its mounts.
    """

    command: tuple[str, ...] | None = None
    flags: tuple[tuple[str, Value], ...] = ()
    environment: Callable[[int], Mapping[str, str]] = field(default=lambda dp: {})
    ready_path: str = "/health"
    health_path: str = "/health"
    read_only_root: bool = False


def model_path(uri: str) -> str:
    """Return the model as the engine's container sees it."""
    if uri.startswith(CLAIM):
        _, slash, below = uri.removeprefix(CLAIM).partition("/")
        return f"{MODEL_MOUNT}{slash}{below}"
    return uri.removeprefix(HUB).partition("@")[0] if uri.startswith(HUB) else uri


def model_revision(uri: str) -> str | None:
    """Return the revision that a hub's uri names."""
    return uri.partition("@")[2] or None if uri.startswith(HUB) else None


def _constant(value: object) -> Value:
    return lambda spec, name: str(value)


def _model(spec: Spec, name: str) -> str:
    return model_path(spec.model.uri)


def _model_or_hub(spec: Spec, name: str) -> str:
    uri = spec.model.uri
    return uri if uri.startswith(HUB) else model_path(uri)


def _revision(spec: Spec, name: str) -> str | None:
    return model_revision(spec.model.uri)


def _served_name(spec: Spec, name: str) -> str:
    return name


def _tp(spec: Spec, name: str) -> str:
    return str(spec.parallelism.tensor_parallel_size)


def _device_ids(spec: Spec, name: str) -> str:
    return ",".join(map(str, range(spec.parallelism.tensor_parallel_size)))


def _device(spec: Spec, name: str) -> str:
    resource = spec.devices.resource_name
    vendors = {CPU_RESOURCE: "cpu", "huawei.com": "npu", "nvidia.com": "cuda"}
    return vendors.get(resource.partition("/")[0], "auto")


def _dtype(spec: Spec, name: str) -> str:
    return spec.engine.dtype


def _dtype_unless_auto(spec: Spec, name: str) -> str | None:
    return None if spec.engine.dtype == "auto" else spec.engine.dtype


def _max_model_len(spec: Spec, name: str) -> str | None:
    length = spec.engine.max_model_len
    return None if length is None else str(length)


def _max_num_seqs(spec: Spec, name: str) -> str:
    return str(spec.engine.max_num_seqs)


def _max_num_batched_tokens(spec: Spec, name: str) -> str:
    return str(spec.engine.max_num_batched_tokens)


def _memory_fraction(spec: Spec, name: str) -> str:
    return spec.engine.device_memory_fraction


def _drain_timeout(spec: Spec, name: str) -> str:
    return str(spec.rollout.drain_timeout_seconds)


def _no_prefix_caching(spec: Spec, name: str) -> str | None:
    return None if spec.engine.prefix_caching else ""


_BATCHING: Final[tuple[tuple[str, Value], ...]] = (
    ("--max-model-len", _max_model_len),
    ("--max-num-seqs", _max_num_seqs),
    ("--max-num-batched-tokens", _max_num_batched_tokens),
)
_SERVING: Final[tuple[tuple[str, Value], ...]] = (
    ("--host", _constant("0.0.0.0")),
    ("--port", _constant(PORT)),
    ("--served-model-name", _served_name),
)


def _pypto_rings(dp: int) -> Mapping[str, str]:
    """Ring sizes in entries and bytes: smaller ones where several replicas share a host."""
    entries = "1048576" if dp == 1 else "131072"
    return {
        "PTO2_RING_TASK_WINDOW": entries,
        "PTO2_RING_DEP_POOL": entries,
        "PTO2_RING_HEAP": "4294967296",
    }


ENGINES: Final[Mapping[EngineKind, EngineRow]] = {
    # Prefix caching has no flag yet: this engine does not do it, so `false` holds by itself.
    EngineKind.ASCEND_SERVING: EngineRow(
        command=("ascend-serving", "replica"),
        flags=(
            ("", _model_or_hub),
            *_SERVING,
            ("--tensor-parallel-size", _tp),
            ("--device", _device),
            ("--dtype", _dtype),
            *_BATCHING,
            ("--device-memory-fraction", _memory_fraction),
            ("--drain-timeout", _drain_timeout),
            ("--log-format", _constant("json")),
        ),
        ready_path="/ready",
        read_only_root=True,
    ),
    EngineKind.VLLM: EngineRow(
        command=("vllm", "serve"),
        flags=(
            ("", _model),
            ("--revision", _revision),
            *_SERVING,
            ("--tensor-parallel-size", _tp),
            ("--dtype", _dtype),
            *_BATCHING,
            ("--gpu-memory-utilization", _memory_fraction),
            ("--no-enable-prefix-caching", _no_prefix_caching),
            ("--shutdown-timeout", _drain_timeout),
        ),
    ),
    EngineKind.PYPTO: EngineRow(
        command=("pypto-serving",),
        flags=(
            ("--model", _model),
            *_SERVING,
            ("--tensor-parallel-size", _tp),
            ("--devices", _device_ids),
            ("--dtype", _dtype_unless_auto),
            *_BATCHING,
            ("--npu-memory-utilization", _memory_fraction),
            ("--no-enable-prefix-caching", _no_prefix_caching),
        ),
        environment=_pypto_rings,
    ),
    EngineKind.CUSTOM: EngineRow(),
}


def arguments(spec: Spec, served_name: str) -> list[str]:
    """Return the engine's command line after its command; `engine.args` come last and win."""
    row = ENGINES[spec.engine.kind]
    words: list[str] = []
    for flag, value_of in row.flags:
        value = value_of(spec, served_name)
        if value is not None:
            words += [word for word in (flag, value.replace("$", "$$")) if word]
    # In these a user may mean `$(TENSOR_PARALLEL_SIZE)`.
    return words + list(spec.engine.args)
