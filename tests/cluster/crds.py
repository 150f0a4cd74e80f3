"""The project's own kinds, put into a cluster before anything is tested there.

The garbage collector looks for new kinds every 30 s, and no flag changes that. It knows from the
first moment those that are there when it starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.cluster.api import Api, Body

_FOLDER: Final = Path(__file__).parents[2] / "manifests" / "crd"


def apply_crds(api: Api) -> None:
    """Apply what `kubectl apply -k manifests/crd` does, and wait until it is served."""
    for path in sorted(_FOLDER.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            for applied in api.apply_yaml(path.read_text()):
                _wait_established(api, applied)


def _wait_established(api: Api, applied: Body) -> None:
    path = api.path_of(applied)
    api.wait(lambda: _is_established(api.get(path)), f"{path} is Established")


def _is_established(crd: Body) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []  # null at first
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
