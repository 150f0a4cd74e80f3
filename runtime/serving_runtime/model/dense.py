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


def visible(
    query_positions: torch.Tensor, key_positions: torch.Tensor, window: int | None
) -> torch.Tensor:
    """Return which key each query sees: bool [..., num_queries, num_keys]."""
    distance = query_positions.unsqueeze(-1) - key_positions
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scoring: Scoring,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Compute grouped-query attention of many queries a sequence.

    Args:
        query: [batch, num_heads, num_queries, head_dim].
        key: [batch, num_kv_heads, num_keys, head_dim].
        value: like `key`.
        scoring: its window is the mask's business.
        mask: bool [batch, 1, num_queries, num_keys]; None, if scores are plain: causal, queries
            and keys being the same tokens.

    Returns:
        [batch, num_heads, num_queries, head_dim].
    """
    if not scoring.is_plain:
        assert mask is not None, "only plain scores do without a mask"
        return attend_by_products(query, key, value, scoring, mask)
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scoring.scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def attend_by_products(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scoring: Scoring,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Compute the same with two matrix products a key head, its query heads being rows.

    It can squash scores and has room for sinks, and for single queries on a CPU it is several
    times as fast as torch's fused function if keys and values are contiguous.
    """
    batch, num_kv_heads, num_keys, head_dim = key.shape
    num_queries = query.shape[2]
    rows = query.reshape(batch, num_kv_heads, -1, head_dim)
    scores = (rows @ key.transpose(-1, -2)) * scoring.scale
    if scoring.softcap is not None:
        scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
    scores = scores.view(batch, num_kv_heads, -1, num_queries, num_keys)
    scores = scores.masked_fill(~mask.unsqueeze(2), -torch.inf)
    if scoring.sinks is not None:
        scores = pad(scores, (0, 1))
        scores[..., -1] = scoring.sinks.view(num_kv_heads, -1, 1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = weights[..., :num_keys].flatten(2, 3)
    return (weights @ value).view(query.shape)
