"""Whose an object is, by its controller: a name alone proves nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Self

from serving_contract.kubernetes import GROUP, KIND
from serving_operator.body import items, text


class Ownership(Enum):
    """Of an object that has a child's name."""

    OURS = auto()
    PREDECESSORS = auto()
    """Of a deleted ServingDeployment of the same name: the garbage collector will take it."""
    FOREIGN = auto()
    """Never changed. An object without a controller is foreign too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The controller of an object; all empty if it has none."""

    group: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""

    @classmethod
    def of(cls, body: Mapping[str, object]) -> Self:
        """Read the controller from the owner references."""
        for reference in items(body, "metadata", "ownerReferences"):
            if reference.get("controller") is True:
                return cls(
                    group=text(reference, "apiVersion").partition("/")[0],
                    kind=text(reference, "kind"),
                    name=text(reference, "name"),
                    uid=text(reference, "uid"),
                )
        return cls()

    def seen_from(self, name: str, uid: str) -> Ownership:
        """Return whose the object is for a ServingDeployment."""
        if self.uid and self.uid == uid:
            return Ownership.OURS
        if (self.group, self.kind, self.name) == (GROUP, KIND, name):
            return Ownership.PREDECESSORS
        return Ownership.FOREIGN
