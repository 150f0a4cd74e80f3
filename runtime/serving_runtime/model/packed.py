"""Weights of linear layers in the order that oneDNN multiplies them in, on a CPU.

`torch.nn.functional.linear` brings a weight into that order again at every call: for a few tokens
that takes longer than the product.
"""

from __future__ import annotations

from typing import Final, cast

import torch

ROWS_FORESEEN: Final = 8
"""The order for so many tokens is as good for one and for thousands; that for one is not."""


class PackedLinear(torch.nn.Module):
    """What a linear layer computes.

    Attributes:
        weight: [out_features, in_features] to ask for shape and dtype; opaque otherwise.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.weight: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(
            linear.weight, ROWS_FORESEEN
        )
        self.bias: torch.Tensor | None = linear.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Turn [..., in_features] into [..., out_features]."""
        output = torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], "")
        return cast("torch.Tensor", output)


@torch.inference_mode()
def pack_linears(model: torch.nn.Module) -> None:
    """Put a `PackedLinear` in the place of every linear layer, if oneDNN has the model's dtype.

    Packed weights are this process's own memory: only what stays as it was, such as embeddings,
    is still shared with other processes through the page cache. If the output layer's weights are
    the embeddings, they are kept both ways.
    """
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is torch.nn.Linear and _can_pack(child.weight)
    ]
    while found:
        parent, name, child = found.pop()
        setattr(parent, name, PackedLinear(child))


def _can_pack(weight: torch.Tensor) -> bool:
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return (
        has_onednn
        and weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
    )
