"""What Python packages an image holds, and which of them it should: read on this side of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.images.content import ROOT

PROJECT = "ascend-serving"


def installed(folders: Iterable[Path]) -> dict[str, Distribution]:
    """Return the distributions in some folders by name; the first folder wins."""
    found: dict[str, Distribution] = {}
    for folder in folders:
        for distribution in distributions(path=[str(folder)]):
            found.setdefault(canonicalize_name(distribution.metadata["Name"]), distribution)
    return found


def needed(found: Mapping[str, Distribution], extra: str) -> Mapping[str, list[str]]:
    """Return the names of all that the project with an extra needs, each with what is wrong.

    Nothing is wrong where the distribution is there in a version that was asked for.
    """
    wrong: dict[str, list[str]] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(PROJECT, ""), (PROJECT, extra)]
    while waiting:
        name, chosen = waiting.pop()
        if (name, chosen) in seen:
            continue
        seen.add((name, chosen))
        wrong.setdefault(name, [])
        for requirement in _requirements(found, name, chosen):
            other = canonicalize_name(requirement.name)
            wrong.setdefault(other, []).extend(_faults(found, requirement))
            waiting += [(other, ""), *((other, extra) for extra in requirement.extras)]
    return wrong


def locked_versions() -> set[tuple[str, str]]:
    """Return name and version of all that the lock has."""
    pins = (
        line.split()[0]
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if line[:1].isalnum()
    )
    pairs = (pin.split("==") for pin in pins)
    return {(canonicalize_name(name), version) for name, version in pairs}


def _requirements(
    found: Mapping[str, Distribution], name: str, extra: str
) -> Iterator[Requirement]:
    if name not in found:
        return
    for line in found[name].requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def _faults(found: Mapping[str, Distribution], requirement: Requirement) -> list[str]:
    name = canonicalize_name(requirement.name)
    if name not in found:
        return [f"{requirement} is missing"]
    if not requirement.specifier.contains(found[name].version, prereleases=True):
        return [f"{requirement}, but there is {found[name].version}"]
    return []
