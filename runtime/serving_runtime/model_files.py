"""The small JSON files of a model folder that the server reads, each once at its start."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from serving_runtime.errors import InvalidModel

JsonObject = dict[str, JsonValue]


def read_json_object(path: Path) -> JsonObject:
    """Read a file that may be missing; an empty object stands for that.

    Raises:
        InvalidModel: the file is there and is not a JSON object.
    """
    try:
        content: JsonValue = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidModel(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidModel(f"{path}: holds no JSON object")
    return content


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """What a request that says nothing is sampled with."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


def read_sampling_defaults(model: Path) -> SamplingDefaults:
    """Read `generation_config.json`; absent or null fields cut nothing.

    Raises:
        InvalidModel: the file is corrupt or a value is not a number.
    """
    path = model / "generation_config.json"
    fields = read_json_object(path)

    def number(name: str, default: float) -> float:
        value = fields.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidModel(f"{path}: {name} is {value!r}, not a number")
        return value

    return SamplingDefaults(
        temperature=number("temperature", 1.0),
        top_p=number("top_p", 1.0),
        top_k=max(0, int(number("top_k", 0))),
        min_p=number("min_p", 0.0),
        repetition_penalty=number("repetition_penalty", 1.0),
    )


def read_eos_token_ids(model: Path) -> frozenset[int]:
    """Read the end-of-sequence ids of `generation_config.json`, else of `config.json`."""
    for name in ("generation_config.json", "config.json"):
        value = read_json_object(model / name).get("eos_token_id")
        ids = value if isinstance(value, list) else [value]
        found = frozenset(i for i in ids if isinstance(i, int) and not isinstance(i, bool))
        if found:
            return found
    return frozenset()
