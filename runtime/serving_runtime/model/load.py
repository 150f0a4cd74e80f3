"""A model folder becomes a module: transformers' modelling code with our attention in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, cast

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from serving_runtime.errors import InvalidModel, Refused
from serving_runtime.model.attention import NAME, register

NAMES_SHOWN: Final = 3
"""Of the weights that a message names; a wrong folder misses hundreds."""


def read_model_config(folder: Path) -> PretrainedConfig:
    """Read the configuration of a model that runs a registered attention function.

    Each architecture validates in its own way, so whatever is raised is the model's fault.

    Raises:
        InvalidModel: it does not, transformers does not know it, or the configuration is wrong.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise InvalidModel(f"model {folder}: config.json: {_first_line(error)}") from error
    assert isinstance(config, PretrainedConfig)
    _check_architecture(folder, config)
    return config


def load_model(
    folder: Path, config: PretrainedConfig, *, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """Load the weights; every one of the model's must be there, and no other.

    Raises:
        InvalidModel: weights are missing, unexpected or of a wrong shape.
    """
    register()
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            # They are in the report, and refused there with their names.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise InvalidModel(f"model {folder}: cannot be loaded: {_first_line(error)}") from error
    model, report = cast("tuple[PreTrainedModel, Mapping[str, Iterable[object]]]", loaded)
    _check_weights(folder, report)
    model.set_attn_implementation(NAME)
    return torch.nn.Module.to(model, device)


def max_model_len(config: PretrainedConfig, wanted: int | None) -> int:
    """Return the longest sequence to serve.

    Raises:
        Refused: more is wanted than the model can do in a batch, or than it says it can, or it
            says nothing.
    """
    text = config.get_text_config()
    limit: int | None = text.to_dict().get("max_position_embeddings")
    if limit is None and wanted is None:
        raise Refused("config.json has no max_position_embeddings; set --max-model-len")
    if limit is not None and wanted is not None and wanted > limit:
        raise Refused(
            f"--max-model-len {wanted}: the model's own limit (max_position_embeddings) is {limit}"
        )
    longest = limit if wanted is None else wanted
    assert longest is not None
    _check_rope(config, longest)
    return longest


def _check_rope(config: PretrainedConfig, max_model_len: int) -> None:
    """Refuse positions whose encoding changes with the longest sequence of a forward pass.

    A step mixes sequences, so one of them would change the answers of the others.
    """
    text = config.get_text_config().to_dict()
    rope = text.get("rope_parameters") or {}
    switch = rope.get("original_max_position_embeddings") or text.get(
        "original_max_position_embeddings"
    )
    if rope.get("rope_type") == "longrope" and switch and max_model_len > switch:
        raise Refused(
            f"--max-model-len {max_model_len}: this model's position encoding (longrope) changes "
            f"with the length of a sequence; set --max-model-len to at most {switch}"
        )


def _check_weights(folder: Path, report: Mapping[str, Iterable[object]]) -> None:
    problems = {
        "missing_keys": "lacks",
        "unexpected_keys": "has unexpected",
        "mismatched_keys": "has the wrong shape for",
    }
    for key, problem in problems.items():
        names = sorted(_name(item) for item in report.get(key) or ())
        if names:
            rest = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
            shown = ", ".join(names[:NAMES_SHOWN])
            raise InvalidModel(f"model {folder}: the checkpoint {problem} {shown}{rest}")


def _check_architecture(folder: Path, config: PretrainedConfig) -> None:
    architecture: object = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if not (isinstance(architecture, type) and issubclass(architecture, PreTrainedModel)):
        raise InvalidModel(f"model {folder}: {config.model_type} is no causal language model")
    if not architecture._supports_attention_backend:
        raise InvalidModel(
            f"model {folder}: {architecture.__name__} has an attention of its own, "
            "which cannot be served"
        )


def _name(item: object) -> str:
    """Wrong shapes are reported as (name, shape found, shape wanted)."""
    return str(item[0] if isinstance(item, tuple) else item)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
