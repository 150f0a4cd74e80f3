"""The manifests as a cluster would get them."""

from __future__ import annotations

from typing import Any, Final

import yaml
from tests.contract.custom_resource import Kubectl
from tests.images.content import ROOT

Body = dict[str, Any]

MANIFESTS: Final = ROOT / "manifests"
SAMPLES: Final = tuple(sorted((MANIFESTS / "samples").glob("*.yaml")))


def built(kubectl: Kubectl, folder: str) -> list[Body]:
    """Return what `kubectl apply -k` would apply."""
    return read(kubectl("kustomize", MANIFESTS / folder))


def read(text: str) -> list[Body]:
    """Return the objects of a YAML file."""
    return [document for document in yaml.safe_load_all(text) if document]


def only(objects: list[Body], kind: str) -> Body:
    """Return the one object of a kind."""
    (found,) = (one for one in objects if one["kind"] == kind)
    return found


def kinds(objects: list[Body]) -> set[str]:
    return {one["kind"] for one in objects}
