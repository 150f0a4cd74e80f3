"""Blocks are owned by one sequence or free, never both and never neither."""

import hypothesis.strategies as st
from hypothesis import given

from serving_runtime.kv_cache import BlockPool


def test_a_sequence_gets_just_the_blocks_its_tokens_need() -> None:
    pool = BlockPool(num_blocks=8, block_size=4)
    block_ids: list[int] = []
    assert pool.extend(block_ids, 9) == tuple(block_ids)
    assert (len(block_ids), pool.num_used, pool.num_free) == (3, 3, 5)


def test_a_token_that_fits_the_last_block_takes_none() -> None:
    pool = BlockPool(num_blocks=8, block_size=4)
    block_ids: list[int] = []
    pool.extend(block_ids, 9)
    assert pool.extend(block_ids, 12) == ()
    assert len(pool.extend(block_ids, 13) or ()) == 1


def test_too_few_blocks_change_nothing() -> None:
    pool = BlockPool(num_blocks=2, block_size=4)
    block_ids: list[int] = []
    assert pool.extend(block_ids, 9) is None
    assert (block_ids, pool.num_free) == ([], 2)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 40)), max_size=60),
    st.integers(1, 20),
    st.integers(1, 5),
)
def test_blocks_are_neither_lost_nor_doubled(
    orders: list[tuple[int, int]], num_blocks: int, block_size: int
) -> None:
    pool = BlockPool(num_blocks=num_blocks, block_size=block_size)
    tables: list[list[int]] = [[] for _ in range(5)]
    for table, num_tokens in orders:
        if num_tokens == 0:
            pool.release(tables[table])
        else:
            pool.extend(tables[table], num_tokens)
        owned = [block for blocks in tables for block in blocks]
        assert len(owned) == len(set(owned)) == pool.num_used
        assert pool.num_used + pool.num_free == num_blocks
    for blocks in tables:
        pool.release(blocks)
    taken: list[int] = []
    pool.extend(taken, num_blocks * block_size)
    assert sorted(taken) == list(range(num_blocks))
