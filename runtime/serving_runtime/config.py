"""What a replica's engine is told at its start, and the checks that need no model code.

Separate from the worker so that the command line can refuse a wrong flag or a broken model folder
in one line, before torch is imported and before any process is started.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from serving_runtime.checkpoint import check_checkpoint, max_positions
from serving_runtime.errors import InvalidModel, NotImplementedYet, Refused

HUB_SCHEME = "hf://"


class DeviceKind(StrEnum):
    """The backend that the ranks run on."""

    AUTO = "auto"
    NPU = "npu"
    CUDA = "cuda"
    CPU = "cpu"


class Dtype(StrEnum):
    """The type of weights, activations and KV cache; `auto` is the device's own choice."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


class GenerationConfig(StrEnum):
    """Where sampling defaults come from: the model's `generation_config.json`, or nowhere."""

    AUTO = "auto"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """The engine of one replica.

    Attributes:
        model: folder with `config.json` and `*.safetensors`.
        devices: the replica's device group, one device a rank.
        max_model_len: prompt and output tokens of one sequence; None takes the model's own limit.
        max_num_batched_tokens: the token budget of one step.
        device_memory_fraction: share of the free memory that the KV cache may take.
        block_size: tokens of one KV block.
        kv_blocks: size of the KV cache in blocks; None sizes it from the free memory.
        threads: CPU threads of one rank; None takes every core that the process may use.
    """

    model: Path
    served_name: str
    devices: tuple[int, ...] = (0,)
    tensor_parallel_size: int = 1
    device: DeviceKind = DeviceKind.AUTO
    dtype: Dtype = Dtype.AUTO
    max_model_len: int | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    device_memory_fraction: float = 0.9
    generation_config: GenerationConfig = GenerationConfig.AUTO
    block_size: int = 16
    kv_blocks: int | None = None
    threads: int | None = None

    def check(self) -> None:
        """Check everything that can be known without importing torch.

        Raises:
            NotImplementedYet: a backend, parallelism or model source that comes later.
            InvalidModel: the folder is missing, incomplete or corrupt.
            Refused: a size out of range.
        """
        self._check_sizes()
        self._check_implemented()
        check_checkpoint(self.model)
        self._check_max_model_len()

    def _check_sizes(self) -> None:
        sizes = {
            "--max-model-len": self.max_model_len,
            "--max-num-seqs": self.max_num_seqs,
            "--max-num-batched-tokens": self.max_num_batched_tokens,
        }
        for flag, size in sizes.items():
            if size is not None and size < 1:
                raise Refused(f"{flag} {size}: must be at least 1")
        if not 0 < self.device_memory_fraction <= 1:
            raise Refused(
                f"--device-memory-fraction {self.device_memory_fraction:g}: "
                "must be above 0 and at most 1"
            )

    def _check_max_model_len(self) -> None:
        limit = max_positions(self.model)
        if self.max_model_len is not None and limit is not None and self.max_model_len > limit:
            raise Refused(
                f"--max-model-len {self.max_model_len}: the model's own limit "
                f"(max_position_embeddings) is {limit}"
            )

    def _check_implemented(self) -> None:
        if self.tensor_parallel_size != 1:
            raise NotImplementedYet(
                f"--tp {self.tensor_parallel_size}: tensor parallelism is not implemented yet"
            )
        if self.device in (DeviceKind.NPU, DeviceKind.CUDA):
            raise NotImplementedYet(
                f"--device {self.device}: this backend is not implemented yet; use --device cpu"
            )
        check_source(self.model)


def check_source(model: Path) -> None:
    """Refuse a model that is not a folder on this machine.

    Raises:
        NotImplementedYet: an `hf://` address (a `Path` has swallowed its second slash).
        InvalidModel: the path is empty.
    """
    scheme, _, name = model.as_posix().partition(":/")
    if f"{scheme}://" == HUB_SCHEME:
        raise NotImplementedYet(
            f"{HUB_SCHEME}{name.lstrip('/')}: downloading a model is not implemented yet; "
            "give a folder"
        )
    if model == Path():
        raise InvalidModel("the model is an empty path; give a folder")
