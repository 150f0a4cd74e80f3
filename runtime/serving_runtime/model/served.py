"""A loaded model as the worker runs it: tokens and where they lie in, logits out."""

from __future__ import annotations

from typing import Final, cast

import torch
from transformers import PreTrainedModel

from serving_runtime.errors import InvalidModel
from serving_runtime.model.attention import NAME, Attention
from serving_runtime.model.dense import Scoring, attend, causal_bias
from serving_runtime.model.packed import pack_linears
from serving_runtime.model.paged import KvGeometry

PROBE_TOKENS: Final = 4


class ServedModel:
    """A causal language model that attends with what each forward pass brings along."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self.name = type(model).__name__
        self.dtype: torch.dtype = model.dtype
        self.vocab_size = int(model.config.get_text_config().vocab_size)

    @torch.inference_mode()
    def logits(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        logit_tokens: torch.Tensor,
        attention: Attention,
    ) -> torch.Tensor:
        """Run one forward pass.

        Args:
            input_ids: int64 [num_tokens], of all sequences.
            positions: int64 [num_tokens], of each token in its own sequence.
            logit_tokens: int64 [num_rows], the tokens whose logits are wanted.
            attention: knows which token belongs to which sequence.

        Returns:
            [num_rows, vocab_size] in the model's dtype.
        """
        output = self._model(
            input_ids=input_ids.unsqueeze(0),
            position_ids=positions.unsqueeze(0),
            use_cache=False,
            logits_to_keep=logit_tokens,
            step_attention=attention,
        )
        return cast("torch.Tensor", output.logits[0])

    @torch.inference_mode()
    def reference_logits(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Run one sequence with transformers' own attention: [num_tokens, vocab_size]."""
        self._model.set_attn_implementation("eager")
        try:
            output = self._model(input_ids=input_ids.unsqueeze(0), use_cache=False)
        finally:
            self._model.set_attn_implementation(NAME)
        return cast("torch.Tensor", output.logits[0])

    def pack(self) -> None:
        """Rearrange the weights for speed; see `pack_linears`."""
        pack_linears(self._model)

    def probe(self) -> tuple[KvGeometry, ...]:
        """Find the shape of each layer's keys by running the model: configurations differ in names.

        Raises:
            InvalidModel: a layer keeps something else than keys and values of one shape.
        """
        probe = _Probe()
        tokens = torch.arange(PROBE_TOKENS, device=self._model.device)
        try:
            self.logits(tokens % self.vocab_size, tokens, tokens, probe)
        except _NotPageable as error:
            raise InvalidModel(f"{self.name}: {error}; it cannot be served") from error
        num_layers = int(self._model.config.get_text_config().num_hidden_layers)
        if sorted(probe.layers) != list(range(num_layers)):
            raise InvalidModel(
                f"{self.name}: {len(probe.layers)} of {num_layers} layers have the attention that "
                "can be served"
            )
        return tuple(probe.layers[layer] for layer in range(num_layers))


class _NotPageable(Exception):
    """A layer whose state is not keys and values of one shape."""


class _Probe:
    """Attends over the pass itself, as one sequence, and writes down what each layer brings."""

    def __init__(self) -> None:
        self.layers: dict[int, KvGeometry] = {}

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scoring: Scoring,
    ) -> torch.Tensor:
        """Attend causally; shapes as in `Attention`."""
        if key.shape != value.shape:
            shapes = f"{tuple(key.shape[1:])} and {tuple(value.shape[1:])}"
            raise _NotPageable(f"keys and values of layer {layer} differ in shape, {shapes}")
        if layer in self.layers:
            raise _NotPageable(f"layer {layer} attends twice")
        self.layers[layer] = KvGeometry(num_kv_heads=key.shape[1], head_dim=key.shape[2])
        positions = torch.arange(len(query), device=query.device)
        bias = causal_bias(positions[None, None], positions, scoring.window, query.dtype)
        queries, keys, values = (part.transpose(0, 1).unsqueeze(0) for part in (query, key, value))
        return attend(queries, keys, values, scoring, bias)[0].transpose(0, 1)
