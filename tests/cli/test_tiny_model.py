from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from serving_cli import tiny_model

Cli = Callable[..., tuple[int, str, str]]


def test_two_writings_are_the_same_model(tiny: Path, tmp_path: Path) -> None:
    tiny_model.write(tmp_path)
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (tiny / name).read_bytes()


def test_embeddings_are_untied(tiny: Path) -> None:
    assert json.loads((tiny / "config.json").read_text())["tie_word_embeddings"] is False


def test_command_makes_the_folder_and_says_what_to_do_next(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "tiny"
    code, out, _ = cli("tiny-model", folder)
    assert code == 0
    assert f"ascend-serving serve {folder}" in out
    assert (folder / "config.json").exists()


def test_folder_that_holds_something_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    code, _, err = cli("tiny-model", tmp_path)
    assert code == 2
    assert "not an empty folder" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
