"""What is refused before torch is imported, in one line each."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving_runtime.config import DeviceKind, EngineConfig
from serving_runtime.errors import InvalidModel, NotImplementedYet, Refused

TENSOR = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def weights(header: object = TENSOR, data: bytes = bytes(8)) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    (tmp_path / "model.safetensors").write_bytes(weights())
    return tmp_path


def check(model: Path, **fields: Any) -> None:
    EngineConfig(model=model, served_name="m", **fields).check()


def test_a_whole_folder_is_accepted(folder: Path) -> None:
    check(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"tensor_parallel_size": 2},
            "--tp 2: tensor parallelism is not implemented yet",
        ),
        (
            {"device": DeviceKind.NPU},
            "--device npu: this backend is not implemented yet; use --device cpu",
        ),
        (
            {"device": DeviceKind.CUDA},
            "--device cuda: this backend is not implemented yet; use --device cpu",
        ),
        (
            {"model": Path("hf://Qwen/Qwen3-0.6B@main")},
            "hf://Qwen/Qwen3-0.6B@main: downloading a model is not implemented yet; give a folder",
        ),
    ],
    ids=["tp", "npu", "cuda", "hub"],
)
def test_what_comes_later_is_refused(folder: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(NotImplementedYet) as caught:
        check(**({"model": folder} | fields))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_model_len": 0}, "--max-model-len 0: must be at least 1"),
        ({"max_num_seqs": 0}, "--max-num-seqs 0: must be at least 1"),
        ({"max_num_batched_tokens": -1}, "--max-num-batched-tokens -1: must be at least 1"),
        (
            {"device_memory_fraction": 0.0},
            "--device-memory-fraction 0: must be above 0 and at most 1",
        ),
        (
            {"device_memory_fraction": float("nan")},
            "--device-memory-fraction nan: must be above 0 and at most 1",
        ),
    ],
)
def test_a_size_out_of_range_is_refused(folder: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused) as caught:
        check(folder, **fields)
    assert str(caught.value) == message


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return damage


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.json"), "no config.json"),
        (write("config.json", b"{"), "config.json cannot be read: "),
        (write("config.json", b"[" * 100_000), "config.json cannot be read: "),
        (write("config.json", b"\xff\xfe"), "config.json cannot be read: "),
        (write("config.json", b"[]"), "config.json is not a JSON object"),
        (write("config.json", b"{}"), "config.json has no model_type"),
        (remove("model.safetensors"), "no *.safetensors file"),
        (write("model.safetensors", b"abc"), "model.safetensors is corrupt: "),
        (write("model.safetensors", weights()[:-1]), "it is cut off at "),
        (write("model.safetensors", weights([])), "its header is not a JSON object"),
        (write("model.safetensors", weights({"w": 1})), "its header describes no tensors"),
        (write("model.safetensors", b"\xff" * 64), "model.safetensors is corrupt: "),
        (write(INDEX, b'{"weight_map": {"w": "a.safetensors"}}'), "names a.safetensors, which"),
        (write(INDEX, b'{"weight_map": {}}'), "names no file"),
        (write(INDEX, b"{}"), "has no valid weight_map"),
    ],
)
def test_a_damaged_folder_is_refused_and_the_file_named(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(InvalidModel) as caught:
        check(folder)
    assert str(caught.value).startswith(f"model {folder}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="no such folder"):
        check(tmp_path / "nothing")


def test_a_file_in_place_of_a_folder_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidModel, match="is not a folder"):
        check(folder / "config.json")


def test_every_shard_of_an_index_is_checked(folder: Path) -> None:
    (folder / INDEX).write_text(
        json.dumps({"weight_map": {"w": "model.safetensors", "v": "b.safetensors"}})
    )
    (folder / "b.safetensors").write_bytes(weights()[:-1])
    with pytest.raises(InvalidModel, match=r"b\.safetensors is corrupt"):
        check(folder)


@pytest.mark.parametrize(
    "module", ["config", "request", "step", "kv_cache", "scheduler", "executor", "worker"]
)
def test_host_logic_imports_no_torch(module: str) -> None:
    script = f"import sys, serving_runtime.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
