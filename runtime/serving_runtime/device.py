"""What the engine asks of a device, and the CPU's answers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, Protocol

import torch

from serving_runtime.config import DeviceKind, Dtype
from serving_runtime.errors import NotImplementedYet

logger = logging.getLogger(__name__)

BF16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16"})
"""Without one of them a bfloat16 matrix product takes about 150 times as long as in float32."""
TORCH_DTYPES: Final = {
    Dtype.BFLOAT16: torch.bfloat16,
    Dtype.FLOAT16: torch.float16,
    Dtype.FLOAT32: torch.float32,
}


class Device(Protocol):
    """One accelerator, or the CPU, as a rank uses it."""

    @property
    def name(self) -> str:
        """For people: what is serving."""
        ...

    @property
    def torch_device(self) -> torch.device: ...

    def choose_dtype(self, wanted: Dtype) -> torch.dtype:
        """Resolve `auto`; warn once where an explicit choice is much slower than another."""
        ...

    def free_bytes(self) -> int:
        """Return the memory that is left for the KV cache."""
        ...

    def describe_fault(self, error: Exception) -> str:
        """Say in one line what an error raised by the device means."""
        ...


def open_device(kind: DeviceKind) -> Device:
    """Open the device that a rank runs on; `auto` finds the CPU.

    Raises:
        NotImplementedYet: another backend.
    """
    if kind in (DeviceKind.AUTO, DeviceKind.CPU):
        return Cpu(proc=Path("/proc"), cgroup=Path("/sys/fs/cgroup"))
    raise NotImplementedYet(f"--device {kind}: this backend is not implemented yet")


class Cpu:
    """The host's processor and memory, read from Linux' `/proc` and the process's cgroup."""

    torch_device = torch.device("cpu")

    def __init__(self, *, proc: Path, cgroup: Path) -> None:
        self._proc = proc
        self._cgroup = cgroup

    @property
    def name(self) -> str:
        """The processor's own name."""
        return self._cpuinfo().get("model name", "cpu")

    def choose_dtype(self, wanted: Dtype) -> torch.dtype:
        """Take float32 for `auto` unless the processor multiplies bfloat16 itself."""
        is_fast = not BF16_FLAGS.isdisjoint(self._cpuinfo().get("flags", "").split())
        if wanted is Dtype.AUTO:
            return torch.bfloat16 if is_fast else torch.float32
        if wanted is Dtype.BFLOAT16 and not is_fast:
            logger.warning(
                "--dtype bfloat16: this CPU has neither avx512_bf16 nor amx_bf16; "
                "prompts take about 150 times as long as with float32"
            )
        return TORCH_DTYPES[wanted]

    def free_bytes(self) -> int:
        """Return what the host and the cgroup both still give."""
        return min(self._host_free_bytes(), self._cgroup_free_bytes())

    def describe_fault(self, error: Exception) -> str:
        """Name the kind of error and its first line."""
        first_line = (str(error).splitlines() or [""])[0]
        if isinstance(error, MemoryError) or "can't allocate memory" in first_line:
            return f"the host is out of memory: {first_line}; lower --device-memory-fraction"
        return f"{type(error).__name__}: {first_line}"

    def _cpuinfo(self) -> dict[str, str]:
        """Describe the first processor; the others are alike."""
        text = _read(self._proc / "cpuinfo") or ""
        pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
        return {key.strip(): value.strip() for key, _, value in pairs}

    def _host_free_bytes(self) -> int:
        text = _read(self._proc / "meminfo") or ""
        for line in text.splitlines():
            key, _, value = line.partition(":")
            if key == "MemAvailable":
                return int(value.split()[0]) * 1024
        raise OSError(f"{self._proc / 'meminfo'} does not tell MemAvailable")

    def _cgroup_free_bytes(self) -> int:
        """Return limit less use of cgroup v2 or v1, as mounted in a container; no limit is inf."""
        free = [self._host_free_bytes()]
        for limit, usage in (
            ("memory.max", "memory.current"),
            ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
        ):
            limit_text, usage_text = _read(self._cgroup / limit), _read(self._cgroup / usage)
            if limit_text and usage_text and limit_text.strip() != "max":
                free.append(int(limit_text) - int(usage_text))
        return max(0, min(free))


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
