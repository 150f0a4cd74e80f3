"""Attention over the paged KV cache, for the sequences of one step."""

from __future__ import annotations

from collections.abc import Sequence as Layers
from dataclasses import dataclass
from typing import Final

import torch

from serving_runtime.model.dense import Scoring, attend, attend_by_products, causal_bias

MAX_SCORES: Final = 1 << 22
"""Scores of one head that a tile of a prompt's queries may have."""


@dataclass(frozen=True, slots=True)
class KvGeometry:
    """The keys of one layer: those of a token are [num_kv_heads, head_dim], its values alike."""

    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class Places:
    """Where the tokens of one step lie in the cache.

    Attributes:
        blocks: int64 [num_tokens].
        offsets: int64 [num_tokens], in the block.
        started: int64 [num_started], the blocks whose first token is among these.
    """

    blocks: torch.Tensor
    offsets: torch.Tensor
    started: torch.Tensor


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's keys and values, [num_blocks, num_kv_heads, block_size, head_dim] each.

    The tokens of a block lie side by side for each head, as matrix products want them. Not
    initialised: a block that no token was written to must never be read.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def write(self, places: Places, key: torch.Tensor, value: torch.Tensor) -> None:
        """Put the keys and values [num_tokens, num_kv_heads, head_dim] of tokens in their places.

        A block starts as zeros: hidden tokens weigh nothing, but nothing times NaN is NaN.
        """
        for cached, new in ((self.keys, key), (self.values, value)):
            if len(places.started):
                cached.index_fill_(0, places.started, 0)
            cached[places.blocks, :, places.offsets] = new

    def read(self, head_blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy keys and values out: [num_sequences, num_kv_heads, num_tokens, head_dim] each.

        Args:
            head_blocks: see `head_blocks`.
        """
        return _select(self.keys, head_blocks), _select(self.values, head_blocks)


def head_blocks(blocks: torch.Tensor, num_kv_heads: int) -> torch.Tensor:
    """Return where the heads of blocks lie, a block of one head being one row.

    Args:
        blocks: int64 [num_sequences, num_blocks].
        num_kv_heads: of the layer.

    Returns:
        int64 [num_sequences, num_kv_heads, num_blocks].
    """
    heads = torch.arange(num_kv_heads, device=blocks.device)
    return blocks.unsqueeze(1) * num_kv_heads + heads.unsqueeze(1)


def _select(cached: torch.Tensor, head_blocks: torch.Tensor) -> torch.Tensor:
    # Whole rows of a matrix are copied several times as fast as indexed tensors are.
    rows = cached.flatten(2).flatten(0, 1).index_select(0, head_blocks.flatten())
    return rows.view(*head_blocks.shape[:2], -1, cached.shape[-1])


def allocate(
    layers: Layers[KvGeometry],
    *,
    num_blocks: int,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[LayerCache, ...]:
    """Allocate the KV cache of all layers."""

    def empty(layer: KvGeometry) -> torch.Tensor:
        shape = (num_blocks, layer.num_kv_heads, block_size, layer.head_dim)
        return torch.empty(shape, dtype=dtype, device=device)

    return tuple(LayerCache(empty(layer), empty(layer)) for layer in layers)


def bytes_per_token(layers: Layers[KvGeometry], dtype: torch.dtype) -> int:
    """Return what the keys and values of one token take in all layers together."""
    return sum(2 * layer.num_kv_heads * layer.head_dim for layer in layers) * dtype.itemsize


@dataclass(frozen=True, slots=True)
class Decodes:
    """The step's sequences with a single new token; they come first among its tokens.

    Attributes:
        blocks: int64 [num_decodes, max_blocks] of all their tokens, the new one included; past a
            sequence's end its first block is repeated, because that one surely was written.
        positions: int64 [num_decodes], of the new token.
    """

    blocks: torch.Tensor
    positions: torch.Tensor


@dataclass(frozen=True, slots=True)
class Prefill:
    """One sequence with several new tokens.

    Attributes:
        first: index of its first token among the step's tokens.
        start: position of that token in the sequence.
        num_tokens: how many tokens are new.
        blocks: int64 [1, num_blocks] of all its tokens, the new ones included.
    """

    first: int
    start: int
    num_tokens: int
    blocks: torch.Tensor


@dataclass(frozen=True, slots=True)
class StepLayout:
    """Where the tokens of one step lie; built once a step and used by every layer."""

    places: Places
    decodes: Decodes | None
    prefills: tuple[Prefill, ...]


class PagedAttention:
    """The `Attention` of one step."""

    def __init__(self, caches: Layers[LayerCache], layout: StepLayout) -> None:
        self._caches = caches
        self._layout = layout
        self._head_blocks: dict[int, torch.Tensor] = {}
        self._decode_biases: dict[tuple[int, int | None], torch.Tensor] = {}

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scoring: Scoring,
    ) -> torch.Tensor:
        """Write the new keys and values, then attend; shapes as in `Attention`."""
        cache = self._caches[layer]
        cache.write(self._layout.places, key, value)
        parts = []
        if self._layout.decodes is not None:
            parts.append(self._decode(cache, self._layout.decodes, query, scoring))
        for prefill in self._layout.prefills:
            tokens = slice(prefill.first, prefill.first + prefill.num_tokens)
            if prefill.start == 0:
                keys, values = _batched(key[tokens]), _batched(value[tokens])
            else:
                keys, values = _read(cache, prefill)
            parts.append(_attend_tiled(_batched(query[tokens]), keys, values, scoring))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _decode(
        self, cache: LayerCache, decodes: Decodes, query: torch.Tensor, scoring: Scoring
    ) -> torch.Tensor:
        """Attend from one token of each sequence, all sequences at once."""
        num_kv_heads, block_size = cache.keys.shape[1:3]
        rows = self._head_blocks.get(num_kv_heads)
        if rows is None:
            rows = self._head_blocks[num_kv_heads] = head_blocks(decodes.blocks, num_kv_heads)
        queries = query[: len(decodes.positions)].unsqueeze(2)
        bias = self._decode_bias(decodes, queries, rows.shape[2] * block_size, scoring.window)
        return attend_by_products(queries, *cache.read(rows), scoring, bias).squeeze(2)

    def _decode_bias(
        self, decodes: Decodes, queries: torch.Tensor, num_keys: int, window: int | None
    ) -> torch.Tensor:
        """Return the bias of all layers with so many heads and this window, with all heads."""
        num_heads = queries.shape[1]
        bias = self._decode_biases.get((num_heads, window))
        if bias is None:
            keys = torch.arange(num_keys, device=queries.device)
            bias = causal_bias(decodes.positions[:, None, None], keys, window, queries.dtype)
            bias = bias.expand(-1, num_heads, -1, -1).contiguous()
            self._decode_biases[num_heads, window] = bias
        return bias


def _batched(part: torch.Tensor) -> torch.Tensor:
    """Turn [num_tokens, heads, head_dim] into [1, heads, num_tokens, head_dim]."""
    return part.transpose(0, 1).unsqueeze(0)


def _read(cache: LayerCache, prefill: Prefill) -> tuple[torch.Tensor, torch.Tensor]:
    """Copy all keys and values of one sequence, [1, num_kv_heads, num_keys, head_dim] each."""
    num_keys = prefill.start + prefill.num_tokens
    keys, values = cache.read(head_blocks(prefill.blocks, cache.keys.shape[1]))
    return keys[:, :, :num_keys], values[:, :, :num_keys]


def _attend_tiled(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scoring: Scoring
) -> torch.Tensor:
    """Attend from a sequence's last tokens to all of it.

    Queries go in tiles, so that no bias or score matrix grows with the square of the prompt.

    Args:
        queries: [1, num_heads, num_queries, head_dim].
        keys: [1, num_kv_heads, num_keys, head_dim].
        values: like `keys`.
        scoring: how this layer scores.

    Returns:
        [num_queries, num_heads, head_dim].
    """
    num_queries, num_keys = queries.shape[2], keys.shape[2]
    if num_queries == num_keys and not scoring.hides(num_keys) and scoring.is_plain:
        return attend(queries, keys, values, scoring, None)[0].transpose(0, 1)
    positions = torch.arange(num_keys, device=queries.device)
    start, tile_len = num_keys - num_queries, max(1, MAX_SCORES // num_keys)
    tiles = []
    for first in range(start, num_keys, tile_len):
        end = min(first + tile_len, num_keys)
        at, seen = positions[None, None, first:end], positions[:end]
        bias = causal_bias(at, seen, scoring.window, queries.dtype)
        tile = queries[:, :, first - start : end - start]
        tiles.append(attend(tile, keys[:, :, :end], values[:, :, :end], scoring, bias)[0])
    return torch.cat(tiles, dim=1).transpose(0, 1)
