"""Greedy output in float32 equals transformers', token for token."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from serving_runtime.request import SamplingParams

ARCHITECTURES = ["qwen3", "llama", "mistral", "qwen3_moe", "gemma2"]
BUDGETS = [1, 7, 37, 8192]
NUM_TOKENS = 24
GREEDY = SamplingParams(max_tokens=NUM_TOKENS, temperature=0)

Engine = Callable[..., Any]
Folder = Callable[[str], Path]


def make_prompts(count: int) -> list[list[int]]:
    rng = random.Random(5)
    return [[rng.randrange(199) for _ in range(rng.randint(3, 70))] for _ in range(count)]


PROMPTS = make_prompts(32)


@pytest.fixture(scope="module")
def expected(model_folder: Folder) -> Callable[[str], list[list[int]]]:
    """What transformers' `generate` gives for each prompt alone."""
    known: dict[str, list[list[int]]] = {}

    def find(architecture: str) -> list[list[int]]:
        if architecture not in known:
            known[architecture] = generate(model_folder(architecture))
        return known[architecture]

    return find


def generate(folder: Path) -> list[list[int]]:
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    answers = []
    for prompt in PROMPTS:
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=NUM_TOKENS,
            do_sample=False,
        )
        answers.append(output[0, len(prompt) :].tolist())
    assert all(len(answer) == NUM_TOKENS for answer in answers)
    return answers


def is_diverse(answers: list[list[int]]) -> bool:
    return len({token for answer in answers for token in answer}) > 10


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_prompt_alone_gives_what_transformers_gives(
    architecture: str, budget: int, model_folder: Folder, local_engine: Engine, expected: Any
) -> None:
    engine = local_engine(model_folder(architecture), max_num_batched_tokens=budget)
    answers = [engine.run([(prompt, GREEDY)])[0].token_ids for prompt in PROMPTS[:4]]
    assert answers == expected(architecture)[:4]
    assert is_diverse(answers)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_prompt_among_31_others_gives_what_it_gives_alone(
    architecture: str, budget: int, model_folder: Folder, local_engine: Engine, expected: Any
) -> None:
    engine = local_engine(model_folder(architecture), max_num_batched_tokens=budget)
    answers = [a.token_ids for a in engine.run([(prompt, GREEDY) for prompt in PROMPTS])]
    assert answers == expected(architecture)
    assert is_diverse(answers)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_preempted_prompt_gives_what_it_gives_undisturbed(
    architecture: str, model_folder: Folder, local_engine: Engine, expected: Any
) -> None:
    engine = local_engine(model_folder(architecture), kv_blocks=70, max_num_batched_tokens=37)
    answers = [a.token_ids for a in engine.run([(prompt, GREEDY) for prompt in PROMPTS])]
    assert engine.scheduler.num_preemptions > 0
    assert answers == expected(architecture)
    assert is_diverse(answers)
    assert engine.scheduler.kv_blocks_used == 0


def test_what_lay_in_the_cache_before_does_not_matter(
    model_folder: Folder, local_engine: Engine, expected: Any
) -> None:
    engine = local_engine(model_folder("mistral"), max_num_batched_tokens=37)
    for cache in engine.rank._caches:
        cache.keys.fill_(torch.nan)
        cache.values.fill_(torch.nan)
    answers = [a.token_ids for a in engine.run([(prompt, GREEDY) for prompt in PROMPTS[:8]])]
    assert answers == expected("mistral")[:8]
