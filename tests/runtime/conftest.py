"""Tiny random models of several architectures, and an engine without processes to run them.

torch and transformers are imported by the fixtures that need them: host logic is tested without.
"""

from __future__ import annotations

import os

# Read by OpenMP when torch is loaded: the machine is shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serving_runtime.config import Dtype, EngineConfig
from serving_runtime.request import Request, SamplingParams
from serving_runtime.scheduler import Scheduler, TokenEvent

if TYPE_CHECKING:
    from transformers import PretrainedConfig

VOCAB_SIZE = 199
MAX_POSITIONS = 256
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": MAX_POSITIONS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    # With tied embeddings a random model repeats one token, whatever its attention does.
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
# Windows are shorter than the prompts and no multiple of a block.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("Qwen3Config", {}),
    "llama": ("LlamaConfig", {}),
    "mistral": ("MistralConfig", {"sliding_window": 23}),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
    "gemma2": (
        "Gemma2Config",
        {"sliding_window": 23, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0},
    ),
}


def make_config(architecture: str) -> PretrainedConfig:
    import transformers

    name, fields = ARCHITECTURES[architecture]
    config: PretrainedConfig = getattr(transformers, name)(**SHAPE, **fields)
    return config


def write_model(config: PretrainedConfig, folder: Path) -> Path:
    """Write a model whose logits depend on all of its context."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    factory: Any = AutoModelForCausalLM
    model = factory.from_config(config, dtype=torch.float32)
    embeddings = model.get_input_embeddings().weight
    for parameter in model.parameters():
        if parameter.dim() > 1:
            std = 1.0 if parameter is embeddings else parameter.shape[-1] ** -0.5
            torch.nn.init.normal_(parameter, std=std)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny model by its architecture's name."""
    folders: dict[str, Path] = {}

    def find(architecture: str) -> Path:
        if architecture not in folders:
            folder = tmp_path_factory.mktemp(architecture)
            folders[architecture] = write_model(make_config(architecture), folder)
        return folders[architecture]

    return find


@dataclass
class Answer:
    """All that was drawn for one prompt."""

    events: list[TokenEvent] = field(default_factory=list)

    @property
    def token_ids(self) -> list[int]:
        return [event.token_id for event in self.events]


class LocalEngine:
    """Scheduler and rank in this process."""

    def __init__(self, config: EngineConfig) -> None:
        from serving_runtime.rank import start_rank

        self.rank, self.facts = start_rank(config, {})
        self.scheduler = Scheduler(
            num_blocks=self.facts.num_blocks,
            block_size=self.facts.block_size,
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
        )

    def run(self, prompts: Sequence[tuple[list[int], SamplingParams]]) -> list[Answer]:
        """Run prompts that arrive at once to their end; answers in the prompts' order."""
        answers: dict[str, Answer] = {}
        for i, (prompt, sampling) in enumerate(prompts):
            answers[str(i)] = Answer()
            self.scheduler.add(
                Request(
                    request_id=str(i),
                    prompt_token_ids=tuple(prompt),
                    sampling=sampling,
                    expected_tokens=8,
                )
            )
        while (step := self.scheduler.schedule()) is not None:
            for event in self.scheduler.update(step, self.rank.execute(step)):
                answers[event.request_id].events.append(event)
        return list(answers.values())


@pytest.fixture
def local_engine() -> Callable[..., LocalEngine]:
    """Return a maker of engines: the model's folder, then fields of `EngineConfig`."""

    def make(model: Path, **fields: Any) -> LocalEngine:
        defaults: dict[str, Any] = {
            "served_name": "tiny",
            "dtype": Dtype.FLOAT32,
            "block_size": 4,
            "kv_blocks": 1024,
            "threads": 1,
        }
        return LocalEngine(EngineConfig(model=model, **(defaults | fields)))

    return make
