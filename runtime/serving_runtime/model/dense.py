"""Attention over keys and values that lie side by side: the reference that all else equals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad, scaled_dot_product_attention


@dataclass(frozen=True, slots=True)
class Scoring:
    """How one layer turns queries and keys into weights.

    Attributes:
        window: keys that a query sees, its own included; None sees all before it.
        softcap: scores are squashed into (-softcap, softcap).
        sinks: one more score a head, [num_heads], that takes weight and gives nothing.
    """

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Scores go straight into the softmax."""
        return self.softcap is None and self.sinks is None

    def hides(self, num_keys: int) -> bool:
        """Whether the window leaves out any of so many keys."""
        return self.window is not None and self.window < num_keys


def causal_bias(
    query_positions: torch.Tensor,
    key_positions: torch.Tensor,
    window: int | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Return what to add to scores: 0 where a query sees a key, else minus infinity.

    Args:
        query_positions: int64 [..., num_queries].
        key_positions: int64 [num_keys].
        window: keys that a query sees, its own included; None: all before it.
        dtype: of the scores.

    Returns:
        [..., num_queries, num_keys].
    """
    distance = query_positions.unsqueeze(-1) - key_positions
    is_hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
    bias = torch.zeros(is_hidden.shape, dtype=dtype, device=is_hidden.device)
    return bias.masked_fill_(is_hidden, -torch.inf)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scoring: Scoring,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """Compute grouped-query attention of many queries a sequence.

    Args:
        query: [batch, num_heads, num_queries, head_dim].
        key: [batch, num_kv_heads, num_keys, head_dim].
        value: like `key`.
        scoring: its window is the bias's business.
        bias: see `causal_bias`, [batch, 1, num_queries, num_keys]; None, if scores are plain:
            causal, queries and keys being the same tokens.

    Returns:
        [batch, num_heads, num_queries, head_dim].
    """
    if not scoring.is_plain:
        assert bias is not None, "only plain scores do without a bias"
        return attend_by_products(query, key, value, scoring, bias)
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=bias,
        is_causal=bias is None,
        scale=scoring.scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def attend_by_products(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scoring: Scoring,
    bias: torch.Tensor,
) -> torch.Tensor:
    """Compute the same with two matrix products a key head, its query heads being rows.

    It can squash scores and has room for sinks, and for single queries on a CPU it is several
    times as fast as torch's fused function if keys and values are contiguous. A bias that has all
    heads, [batch, num_heads, num_queries, num_keys], need not be copied.
    """
    num_keys, head_dim = key.shape[-2:]
    keys, values = key.flatten(0, 1), value.flatten(0, 1)
    rows = query.reshape(len(keys), -1, head_dim)
    bias = bias.expand(*query.shape[:3], num_keys).reshape(*rows.shape[:2], num_keys)
    scores = _scores(rows, keys.transpose(1, 2), scoring, bias)
    if scoring.sinks is not None:
        scores = pad(scores.view(*query.shape[:3], num_keys), (0, 1))
        scores[..., -1] = scoring.sinks.unsqueeze(-1)
        scores = scores.view(*rows.shape[:2], num_keys + 1)
    weights = scores.softmax(dim=-1)[..., :num_keys]
    return (weights @ values).view(query.shape)


def _scores(
    rows: torch.Tensor, keys: torch.Tensor, scoring: Scoring, bias: torch.Tensor
) -> torch.Tensor:
    """Return scaled, squashed and biased products of [n, rows, dim] with [n, dim, keys]."""
    if scoring.softcap is None:
        return torch.baddbmm(bias, rows, keys, alpha=scoring.scale)
    squashed = torch.tanh((rows @ keys) * (scoring.scale / scoring.softcap))
    return torch.add(bias, squashed, alpha=scoring.softcap)
