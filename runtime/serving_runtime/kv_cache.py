"""Which KV blocks are free and which a sequence owns. The tensors are the worker's."""

from __future__ import annotations

from collections import deque


class BlockPool:
    """The blocks of one replica's KV cache; a block is `block_size` tokens of one sequence."""

    def __init__(self, *, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free = deque(range(num_blocks))

    @property
    def num_free(self) -> int:
        """Blocks that no sequence owns."""
        return len(self._free)

    @property
    def num_used(self) -> int:
        """Blocks that a sequence owns."""
        return self.num_blocks - len(self._free)

    def missing(self, block_ids: list[int], num_tokens: int) -> int:
        """Return how many blocks a sequence lacks to hold `num_tokens`."""
        return max(0, -(-num_tokens // self.block_size) - len(block_ids))

    def extend(self, block_ids: list[int], num_tokens: int) -> tuple[int, ...] | None:
        """Append free blocks until `block_ids` holds `num_tokens`.

        Returns:
            The appended blocks, or None, with nothing changed, when there are too few.
        """
        missing = self.missing(block_ids, num_tokens)
        if missing > len(self._free):
            return None
        taken = tuple(self._free.popleft() for _ in range(missing))
        block_ids.extend(taken)
        return taken

    def release(self, block_ids: list[int]) -> None:
        """Take back every block of a sequence, the last one first, and empty its list."""
        while block_ids:
            self._free.append(block_ids.pop())
