"""What a plan asks for. Every action says why, in words for the log and for Events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serving_operator.body import Body
from serving_operator.observed import Child, Pod


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePod:
    """Make a replica's pod.

    Attributes:
        render: makes the body when its turn has come: 512 large ones at once would hold up every
            other ServingDeployment, and take the memory.
    """

    index: int
    render: Callable[[], Body]
    reason: str

    @property
    def body(self) -> Body:
        """The pod."""
        return self.render()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletePod:
    """Delete the very pod that was seen, as it was seen.

    Attributes:
        by_force: without grace, because nobody is there to end it.
    """

    pod: Pod
    reason: str
    by_force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateChild:
    """Make another child."""

    body: Body
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver:
    """Make what a POST set our own, so that an apply can take it back."""

    child: Child
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyChild:
    """Apply what we mean to the very object that was seen."""

    body: Body
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteChild:
    """Delete the very object that was seen."""

    child: Child
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskServer:
    """Ask the API server, by dry runs, whether it would accept these pods."""

    replica: Body | None
    router: Body | None
    reason: str


Action = CreatePod | DeletePod | CreateChild | TakeOver | ApplyChild | DeleteChild | AskServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """An Event on the ServingDeployment."""

    reason: str
    message: str
    is_warning: bool = False
