"""What a rank computes beyond greedy tokens, and what it refuses when it starts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Phi3Config

from serving_runtime.config import Dtype, EngineConfig
from serving_runtime.device import Cpu
from serving_runtime.errors import InvalidModel, Refused
from serving_runtime.model.load import max_model_len
from serving_runtime.rank import num_blocks, start_rank
from serving_runtime.request import SamplingParams

PROMPT = [(7 * i + 3) % 199 for i in range(50)]
OTHERS = [
    ([(i * j) % 199 for j in range(1, 5 + i)], SamplingParams(max_tokens=9)) for i in range(9)
]

Engine = Callable[..., Any]
Folder = Callable[[str], Path]


@pytest.fixture
def copy(model_folder: Folder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder("qwen3"), tmp_path / "model"))


def start(folder: Path, **fields: Any) -> None:
    start_rank(
        EngineConfig(
            model=folder, served_name="m", dtype=Dtype.FLOAT32, kv_blocks=64, threads=1, **fields
        ),
        {},
    )


def edit_config(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def reference_logprobs(folder: Path, token_ids: list[int]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([token_ids])).logits[0]
    return logits.log_softmax(-1)


def test_a_seeded_answer_is_the_same_alone_and_among_others(
    model_folder: Folder, local_engine: Engine
) -> None:
    engine = local_engine(model_folder("qwen3"), max_num_batched_tokens=37)
    sampling = SamplingParams(max_tokens=30, temperature=0.8, top_k=50, top_p=0.95, seed=11)
    alone = engine.run([(PROMPT, sampling)])[0].token_ids
    among = engine.run([*OTHERS, (PROMPT, sampling)])[-1].token_ids
    assert alone == among
    assert len(set(alone)) > 10


def test_logprobs_are_those_of_transformers(model_folder: Folder, local_engine: Engine) -> None:
    engine = local_engine(model_folder("qwen3"))
    sampling = SamplingParams(max_tokens=8, temperature=2.0, seed=3, logprobs=4)
    (answer,) = engine.run([(PROMPT, sampling)])
    expected = reference_logprobs(model_folder("qwen3"), PROMPT + answer.token_ids)
    for i, event in enumerate(answer.events):
        row = expected[len(PROMPT) - 1 + i]
        assert event.logprob.token_id == event.token_id
        assert event.logprob.logprob == pytest.approx(row[event.token_id].item(), abs=1e-4)
        best = row.topk(4)
        assert [token_id for token_id, _ in event.logprob.top] == best.indices.tolist()


@pytest.mark.parametrize("budget", [1, 7, 8192])
def test_prompt_logprobs_are_those_of_transformers_however_the_prompt_is_cut(
    budget: int, model_folder: Folder, local_engine: Engine
) -> None:
    engine = local_engine(model_folder("qwen3"), max_num_batched_tokens=budget)
    sampling = SamplingParams(max_tokens=2, temperature=0, prompt_logprobs=2)
    first, second = engine.run([(PROMPT, sampling)])[0].events
    expected = reference_logprobs(model_folder("qwen3"), PROMPT)
    targets = [expected[i, token_id].item() for i, token_id in enumerate(PROMPT[1:])]
    assert [scored.token_id for scored in first.prompt_logprobs] == PROMPT[1:]
    assert [s.logprob for s in first.prompt_logprobs] == pytest.approx(targets, abs=1e-4)
    assert all(len(scored.top) == 2 for scored in first.prompt_logprobs)
    assert second.prompt_logprobs is None


def test_a_prompt_of_one_token_has_no_prompt_logprobs(
    model_folder: Folder, local_engine: Engine
) -> None:
    sampling = SamplingParams(max_tokens=1, prompt_logprobs=2)
    (answer,) = local_engine(model_folder("qwen3")).run([([5], sampling)])
    assert answer.events[0].prompt_logprobs == ()


def test_bfloat16_serves_too(model_folder: Folder, local_engine: Engine) -> None:
    engine = local_engine(model_folder("qwen3_moe"), dtype=Dtype.BFLOAT16)
    (answer,) = engine.run([(PROMPT, SamplingParams(max_tokens=20, seed=1))])
    assert len(answer.token_ids) == 20
    assert engine.facts.dtype == "bfloat16"


def test_a_context_filled_to_the_last_token_is_served(
    model_folder: Folder, local_engine: Engine
) -> None:
    engine = local_engine(model_folder("llama"), kv_blocks=64)
    prompt = [i % 199 for i in range(250)]
    (answer,) = engine.run([(prompt, SamplingParams(max_tokens=6, temperature=0))])
    assert len(answer.token_ids) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("model.layers.1.mlp.up_proj.weight"), "lacks model.layers.1.mlp.up_proj"),
        (lambda w: w.update(extra=torch.zeros(2)), "has unexpected extra"),
        (
            lambda w: w.update({"model.norm.weight": torch.zeros(3)}),
            "has the wrong shape for model.norm.weight",
        ),
        (
            lambda w: w["model.norm.weight"].fill_(torch.nan),
            "differ from transformers' own by nan",
        ),
    ],
    ids=["missing", "unexpected", "shape", "not-a-number"],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    copy: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    edit_weights(copy, change)
    with pytest.raises(InvalidModel) as caught:
        start(copy)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "no_such_model"}, "no_such_model"),
        ({"num_attention_heads": "four"}, "num_attention_heads"),
        (
            {"model_type": "gpt_neo", "attention_types": [[["global"], 2]], "num_layers": 2},
            "GPTNeoForCausalLM has an attention of its own",
        ),
        ({"model_type": "clip"}, "clip is no causal language model"),
    ],
    ids=["unknown", "wrong-type", "old-attention", "no-language"],
)
def test_an_architecture_that_cannot_be_served_is_refused(
    copy: Path, fields: dict[str, object], message: str
) -> None:
    edit_config(copy, **fields)
    with pytest.raises(InvalidModel) as caught:
        start(copy)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_context_than_the_model_has_is_refused(copy: Path) -> None:
    with pytest.raises(Refused, match=r"--max-model-len 257: .* is 256"):
        start(copy, max_model_len=257)


def test_a_position_encoding_that_changes_with_the_length_is_refused() -> None:
    factors = [1.0] * 8
    config = Phi3Config(
        hidden_size=64,
        num_attention_heads=4,
        max_position_embeddings=256,
        original_max_position_embeddings=64,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": factors,
            "long_factor": factors,
            "original_max_position_embeddings": 64,
        },
    )
    assert max_model_len(config, 64) == 64
    with pytest.raises(Refused, match="--max-model-len to at most 64"):
        max_model_len(config, None)


def test_the_kv_cache_is_no_larger_than_all_sequences_can_use() -> None:
    config = EngineConfig(model=Path("m"), served_name="m", max_num_seqs=3, block_size=16)
    assert num_blocks(config, 1 << 40, 100, 1000) == 3 * 7


def test_the_kv_cache_takes_its_fraction_of_the_free_memory() -> None:
    config = EngineConfig(model=Path("m"), served_name="m", device_memory_fraction=0.5)
    assert num_blocks(config, 16 * 1000 * 200, 100, 1000) == 100


def test_a_kv_cache_too_small_for_one_sequence_is_refused_with_the_cure() -> None:
    config = EngineConfig(model=Path("m"), served_name="m", device_memory_fraction=0.5)
    with pytest.raises(Refused, match=r"room for 80 tokens .* --max-model-len to at most 80"):
        num_blocks(config, 16 * 1000 * 10, 100, 1000)


@pytest.fixture
def cpu(tmp_path: Path) -> Cpu:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    1000 kB\n")
    (tmp_path / "cpuinfo").write_text("model name\t: A CPU\nflags\t\t: avx avx2\n")
    return Cpu(proc=tmp_path, cgroup=tmp_path / "cgroup")


def test_free_memory_is_the_hosts_without_a_cgroup_limit(cpu: Cpu, tmp_path: Path) -> None:
    assert cpu.free_bytes() == 1000 * 1024
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup/memory.max").write_text("max\n")
    (tmp_path / "cgroup/memory.current").write_text("5\n")
    assert cpu.free_bytes() == 1000 * 1024


def test_free_memory_is_what_the_cgroup_leaves(cpu: Cpu, tmp_path: Path) -> None:
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup/memory.max").write_text("5000\n")
    (tmp_path / "cgroup/memory.current").write_text("2000\n")
    assert cpu.free_bytes() == 3000


def test_auto_takes_float32_without_bfloat16_instructions(cpu: Cpu) -> None:
    assert cpu.choose_dtype(Dtype.AUTO) == torch.float32


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_auto_takes_bfloat16_where_the_cpu_multiplies_it(
    flag: str, cpu: Cpu, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name: A CPU\nflags: avx {flag}\n")
    assert cpu.choose_dtype(Dtype.AUTO) == torch.bfloat16


def test_bfloat16_without_its_instructions_warns_once(
    cpu: Cpu, caplog: pytest.LogCaptureFixture
) -> None:
    assert cpu.choose_dtype(Dtype.BFLOAT16) == torch.bfloat16
    (record,) = caplog.records
    assert "neither avx512_bf16 nor amx_bf16" in record.message
