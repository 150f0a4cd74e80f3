"""Is a folder a checkpoint that can be read? Answered from file headers alone, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, TypeGuard

from pydantic import BaseModel, TypeAdapter, ValidationError

from serving_runtime.errors import InvalidModel

CONFIG: Final = "config.json"
INDEX: Final = "model.safetensors.index.json"
LENGTH_BYTES: Final = 8
MAX_HEADER_BYTES: Final = 100_000_000
"""The limit of the safetensors format itself."""


class _Index(BaseModel):
    weight_map: dict[str, str]


class _Tensor(BaseModel):
    data_offsets: tuple[int, int]


_HEADER: Final = TypeAdapter(dict[str, _Tensor])


def check_checkpoint(folder: Path) -> None:
    """Check that `folder` holds a model configuration and whole safetensors files.

    Raises:
        InvalidModel: something is missing or corrupt; the message names the file.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "no such folder"
        raise InvalidModel(f"model {folder}: {what}")
    read_config(folder)
    for file in _weight_files(folder):
        _check_weights(file)


def read_config(folder: Path) -> dict[str, object]:
    """Read `config.json`.

    Raises:
        InvalidModel: it is missing, is no JSON object, or names no architecture.
    """
    path = folder / CONFIG
    config = _read_json(path)
    if not isinstance(config, dict):
        raise InvalidModel(f"model {folder}: {CONFIG} is not a JSON object")
    if not isinstance(config.get("model_type"), str):
        raise InvalidModel(f"model {folder}: {CONFIG} has no model_type")
    return config


def max_positions(folder: Path) -> int | None:
    """Return the longest sequence that `config.json` names; None if it names none here.

    Raises:
        InvalidModel: as `read_config`.
    """
    config = read_config(folder)
    text = config.get("text_config")
    named = [part.get("max_position_embeddings") for part in (config, text) if _is_object(part)]
    return next((limit for limit in named if isinstance(limit, int)), None)


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _read_json(path: Path) -> object:
    try:
        content: object = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InvalidModel(f"model {path.parent}: no {path.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidModel(f"model {path.parent}: {path.name} cannot be read: {error}") from error
    return content


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX).exists():
        return _indexed_files(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InvalidModel(f"model {folder}: no *.safetensors file")
    return files


def _indexed_files(folder: Path) -> list[Path]:
    try:
        index = _Index.model_validate(_read_json(folder / INDEX))
    except ValidationError as error:
        raise InvalidModel(f"model {folder}: {INDEX} has no valid weight_map") from error
    names = sorted(set(index.weight_map.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise InvalidModel(f"model {folder}: {INDEX} names {_missing(missing)}")
    return [folder / name for name in names]


def _missing(names: list[str]) -> str:
    return f"{names[0]}, which is missing" if names else "no file"


def _check_weights(path: Path) -> None:
    try:
        _check_header(path)
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidModel(f"model {path.parent}: {path.name} is corrupt: {error}") from error


def _check_header(path: Path) -> None:
    """Read the table of contents of a safetensors file: 8 bytes of length, then JSON."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 0 < length <= min(MAX_HEADER_BYTES, size - LENGTH_BYTES):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        end = LENGTH_BYTES + length + _data_bytes(file.read(length))
    if end > size:
        raise ValueError(f"it is cut off at {size} of {end} bytes")


def _data_bytes(header: bytes) -> int:
    content: object = json.loads(header)
    if not isinstance(content, dict):
        raise ValueError("its header is not a JSON object")
    content.pop("__metadata__", None)
    try:
        tensors = _HEADER.validate_python(content)
    except ValidationError:
        raise ValueError("its header describes no tensors") from None
    return max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
