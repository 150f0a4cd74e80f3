"""The one attention function that every model runs: paged, over the batch of a step.

Registered with transformers under a name of its own, so its modelling code is used unchanged. The
step's `Attention` travels as a keyword argument through the model's `forward`; nothing is global.
"""

from __future__ import annotations

from typing import Final, Protocol

import torch
from transformers import AttentionInterface

from serving_runtime.model.dense import Scoring

NAME: Final = "ascend_serving_paged"


class Attention(Protocol):
    """What the layers of one forward pass attend with."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scoring: Scoring,
    ) -> torch.Tensor:
        """Attend from the pass's tokens to their sequences.

        Args:
            layer: index of the layer.
            query: [num_tokens, num_heads, head_dim].
            key: [num_tokens, num_kv_heads, head_dim].
            value: like `key`.
            scoring: how this layer scores.

        Returns:
            [num_tokens, num_heads, head_dim].
        """
        ...


def register() -> None:
    """Make the function known to transformers; doing so again changes nothing."""
    AttentionInterface.register(NAME, _attend)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    step_attention: Attention,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_unused: object,
) -> tuple[torch.Tensor, None]:
    """Follow transformers' attention interface: [1, heads, tokens, dim] in, heads third out."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer = module.layer_idx
    assert isinstance(layer, int), "transformers numbers its attention layers"
    output = step_attention.attend(
        layer,
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        Scoring(scale, sliding_window, softcap, s_aux),
    )
    return output.unsqueeze(0), None
