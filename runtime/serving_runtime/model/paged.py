"""Attention over the paged KV cache, for the sequences of one step."""

from __future__ import annotations

from collections.abc import Sequence as Layers
from dataclasses import dataclass
from typing import Final

import torch

from serving_runtime.model.dense import Scoring, attend, attend_by_products, visible

MAX_SCORES: Final = 1 << 22
"""Scores of one head that a tile of a prompt's queries may have."""


@dataclass(frozen=True, slots=True)
class KvGeometry:
    """The keys of one layer: those of a token are [num_kv_heads, head_dim], its values alike."""

    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's keys and values, [num_slots, num_kv_heads, head_dim] each.

    Slot `block * block_size + offset` holds one token: blocks lie one after the other. Not
    initialised: a slot that no token was written to must never be read.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def write(self, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Put the keys and values [num_tokens, num_kv_heads, head_dim] of tokens in their slots."""
        self.keys.index_copy_(0, slots, key)
        self.values.index_copy_(0, slots, value)

    def read(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy keys and values out: [*slots.shape, num_kv_heads, head_dim] each."""
        return _select(self.keys, slots), _select(self.values, slots)


def _select(tokens: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    # Whole rows of a matrix are copied several times as fast as indexed tensors are.
    rows = tokens.flatten(1).index_select(0, slots.flatten())
    return rows.view(*slots.shape, *tokens.shape[1:])


def allocate(
    layers: Layers[KvGeometry], *, num_slots: int, dtype: torch.dtype, device: torch.device
) -> tuple[LayerCache, ...]:
    """Allocate the KV cache of all layers."""

    def empty(layer: KvGeometry) -> torch.Tensor:
        shape = (num_slots, layer.num_kv_heads, layer.head_dim)
        return torch.empty(shape, dtype=dtype, device=device)

    return tuple(LayerCache(empty(layer), empty(layer)) for layer in layers)


def bytes_per_token(layers: Layers[KvGeometry], dtype: torch.dtype) -> int:
    """Return what the keys and values of one token take in all layers together."""
    return sum(2 * layer.num_kv_heads * layer.head_dim for layer in layers) * dtype.itemsize


@dataclass(frozen=True, slots=True)
class Decodes:
    """The step's sequences with a single new token; they come first among its tokens.

    Attributes:
        slots: int64 [num_decodes, max_tokens] of all their tokens, the new one included; past a
            sequence's end its first slot is repeated, because that one surely was written.
        positions: int64 [num_decodes], of the new token.
    """

    slots: torch.Tensor
    positions: torch.Tensor


@dataclass(frozen=True, slots=True)
class Prefill:
    """One sequence with several new tokens.

    Attributes:
        first: index of its first token among the step's tokens.
        start: position of that token in the sequence.
        slots: int64 [start + num_tokens] of all its tokens, the new ones included.
    """

    first: int
    start: int
    slots: torch.Tensor

    @property
    def num_tokens(self) -> int:
        """How many tokens are new."""
        return len(self.slots) - self.start


@dataclass(frozen=True, slots=True)
class StepLayout:
    """Where the tokens of one step lie; built once a step and used by every layer.

    Attributes:
        slots: int64 [num_tokens] that their keys and values are written to.
    """

    slots: torch.Tensor
    decodes: Decodes | None
    prefills: tuple[Prefill, ...]


class PagedAttention:
    """The `Attention` of one step."""

    def __init__(self, caches: Layers[LayerCache], layout: StepLayout) -> None:
        self._caches = caches
        self._layout = layout
        self._decode_masks: dict[int | None, torch.Tensor] = {}

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
        cache.write(self._layout.slots, key, value)
        parts = []
        if self._layout.decodes is not None:
            parts.append(self._decode(cache, self._layout.decodes, query, scoring))
        for prefill in self._layout.prefills:
            tokens = slice(prefill.first, prefill.first + prefill.num_tokens)
            if prefill.start == 0:
                parts.append(_attend_tiled(query[tokens], key[tokens], value[tokens], scoring))
            else:
                parts.append(_attend_tiled(query[tokens], *cache.read(prefill.slots), scoring))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _decode(
        self, cache: LayerCache, decodes: Decodes, query: torch.Tensor, scoring: Scoring
    ) -> torch.Tensor:
        """Attend from one token of each sequence, all sequences at once."""
        keys, values = (part.transpose(1, 2).contiguous() for part in cache.read(decodes.slots))
        queries = query[: len(decodes.positions)].unsqueeze(2)
        mask = self._decode_mask(decodes, scoring.window)
        return attend_by_products(queries, keys, values, scoring, mask).squeeze(2)

    def _decode_mask(self, decodes: Decodes, window: int | None) -> torch.Tensor:
        """Return the mask of all layers with this window, bool [num_decodes, 1, 1, max_tokens]."""
        mask = self._decode_masks.get(window)
        if mask is None:
            keys = torch.arange(decodes.slots.shape[1], device=decodes.slots.device)
            mask = visible(decodes.positions[:, None, None], keys, window)
            self._decode_masks[window] = mask
        return mask


def _attend_tiled(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scoring: Scoring
) -> torch.Tensor:
    """Attend from a sequence's last tokens to all of it; shapes as in `Attention`.

    Queries go in tiles, so that no mask or score matrix grows with the square of the prompt.
    """
    num_queries, num_keys = len(query), len(key)
    queries, keys, values = (part.transpose(0, 1).unsqueeze(0) for part in (query, key, value))
    if num_queries == num_keys and not scoring.hides(num_keys) and scoring.is_plain:
        return attend(queries, keys, values, scoring, None)[0].transpose(0, 1)
    positions = torch.arange(num_keys, device=query.device)
    start, tile_len = num_keys - num_queries, max(1, MAX_SCORES // num_keys)
    tiles = []
    for first in range(start, num_keys, tile_len):
        end = min(first + tile_len, num_keys)
        mask = visible(positions[None, None, first:end], positions[:end], scoring.window)
        tile = queries[:, :, first - start : end - start]
        tiles.append(attend(tile, keys[:, :, :end], values[:, :, :end], scoring, mask)[0])
    return torch.cat(tiles, dim=1).transpose(0, 1)
