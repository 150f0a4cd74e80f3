"""Packed linear layers compute what torch's own do, and take their places."""

import pytest
import torch

from serving_runtime.model.packed import PackedLinear, pack_linears

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def can_pack(dtype: torch.dtype) -> bool:
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def packed(linear: torch.nn.Linear) -> PackedLinear:
    model = torch.nn.Sequential(linear)
    pack_linears(model)
    replaced: torch.nn.Module = model[0]
    assert isinstance(replaced, PackedLinear)
    return replaced


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", [(1,), (8,), (1, 37), (2, 3), (0,), (1, 0)], ids=str)
@torch.inference_mode()
def test_a_packed_layer_computes_what_it_replaces(
    dtype: torch.dtype, bias: bool, shape: tuple[int, ...]
) -> None:
    if not can_pack(dtype):
        pytest.skip("this CPU does not multiply bfloat16")
    linear = torch.nn.Linear(40, 24, bias=bias).to(dtype)
    inputs = torch.randn(*shape, 40).to(dtype)
    expected = linear(inputs)
    found = packed(linear)(inputs)
    assert (found.shape, found.dtype) == (expected.shape, dtype)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[dtype])


@torch.inference_mode()
def test_inputs_need_not_be_contiguous() -> None:
    linear = torch.nn.Linear(40, 24)
    inputs = torch.randn(40, 5).t()
    torch.testing.assert_close(packed(linear)(inputs), linear(inputs))


def test_a_packed_weight_still_tells_shape_and_dtype() -> None:
    weight = packed(torch.nn.Linear(40, 24)).weight
    assert (weight.shape, weight.dtype) == ((24, 40), torch.float32)


def test_only_plain_linear_layers_of_a_dtype_that_onednn_has_are_packed() -> None:
    class Special(torch.nn.Linear):
        pass

    model = torch.nn.Sequential(Special(4, 4), torch.nn.Linear(4, 4).double())
    pack_linears(model)
    assert not any(isinstance(layer, PackedLinear) for layer in model)
