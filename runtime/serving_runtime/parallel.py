"""The ranks of one replica as seen from one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from serving_runtime.errors import NotImplementedYet


class Group(Protocol):
    """The ranks that hold one model together; rank 0 answers for all of them."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...


@dataclass(frozen=True, slots=True)
class SingleRank:
    """A group of one."""

    rank: int = 0
    size: int = 1


def open_group(size: int) -> Group:
    """Join the ranks of a replica.

    Raises:
        NotImplementedYet: more than one.
    """
    if size != 1:
        raise NotImplementedYet(f"--tp {size}: tensor parallelism is not implemented yet")
    return SingleRank()
