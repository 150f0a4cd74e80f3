"""The revision: which version of the spec a replica pod was made from.

A hash of what the user said, never of what we render from it or of what the cluster made of that:
our own improvements, and what device plugins write on pods, must not replace a single replica.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from serving_contract.deployment import Spec

_FIELDS: Final[dict[str, bool | set[str]]] = {
    "model": True,
    "parallelism": {"tensor_parallel_size"},
    "devices": True,
    "engine": True,
    "template": True,
}
_DIGITS: Final = 10


def revision_of(spec: Spec) -> str:
    """Return the revision; fields at their default count as absent."""
    said = spec.model_dump(
        mode="json", by_alias=True, include=dict(_FIELDS), exclude_defaults=True, exclude_none=True
    )
    return digest({name: value for name, value in said.items() if value != {}})


def digest(value: object) -> str:
    """Return a short hash of a JSON value; the order of keys does not count."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:_DIGITS]
