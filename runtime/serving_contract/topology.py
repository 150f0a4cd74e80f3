"""Which devices which replica owns. The only place where device ownership is computed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Self

from serving_contract.errors import InvalidTopology

MAX_DATA_PARALLEL_SIZE = 512
MAX_TENSOR_PARALLEL_SIZE = 64
MAX_DEVICE_ID = 65_535


def parse_devices(text: str) -> tuple[int, ...]:
    """Read device ids as users write them: `"0,1,4-7"` is `(0, 1, 4, 5, 6, 7)`.

    The order is kept; naming a device twice is `Topology`'s refusal.

    Raises:
        InvalidTopology: a part is neither a number nor an ascending range.
    """
    return tuple(device for part in text.split(",") for device in _parse_part(part.strip()))


def _parse_part(part: str) -> range:
    first, dash, last = part.partition("-")
    if not _is_number(first) or (dash and not _is_number(last)):
        raise InvalidTopology(f"--devices: {part!r} is neither a device id nor a range such as 0-3")
    low, high = int(first), int(last or first)
    if high < low:
        raise InvalidTopology(f"--devices: the range {part} runs backwards; write {high}-{low}")
    if high > MAX_DEVICE_ID:
        raise InvalidTopology(f"--devices: {part} is above the highest device id, {MAX_DEVICE_ID}")
    return range(low, high + 1)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_DEVICE_ID))


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """dp replicas of tp devices each; device groups are consecutive runs of `devices`.

    Raises:
        InvalidTopology: a size out of range, a device named twice, or a count that is not dp x tp.
    """

    dp: int
    tp: int
    devices: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_size("--dp", self.dp, MAX_DATA_PARALLEL_SIZE)
        _check_size("--tp", self.tp, MAX_TENSOR_PARALLEL_SIZE)
        for device, count in Counter(self.devices).items():
            if count > 1:
                raise InvalidTopology(f"device {device} is named twice")
            if device < 0:
                raise InvalidTopology(f"device {device} is negative")
        needed = self.dp * self.tp
        if len(self.devices) != needed:
            raise InvalidTopology(
                f"--devices names {_devices(len(self.devices))}, "
                f"but --dp {self.dp} x --tp {self.tp} needs {needed}"
            )

    @classmethod
    def of_sizes(cls, *, dp: int, tp: int) -> Self:
        """Take the first dp x tp devices of the machine."""
        _check_size("--dp", dp, MAX_DATA_PARALLEL_SIZE)
        _check_size("--tp", tp, MAX_TENSOR_PARALLEL_SIZE)
        return cls(dp=dp, tp=tp, devices=tuple(range(dp * tp)))

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The device group of each replica, in order of the replica index."""
        return tuple(self.devices[i : i + self.tp] for i in range(0, len(self.devices), self.tp))


def _check_size(flag: str, size: int, limit: int) -> None:
    if not 1 <= size <= limit:
        raise InvalidTopology(f"{flag} {size} is outside 1..{limit}")


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"
