"""What changed between two sets of replicas, in words for the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from serving_router.replica import Identity, Replica

_MAX_NAMED: Final = 16
"""Of the changes in one line; the others are counted."""


def describe(before: Sequence[Replica], after: Sequence[Replica]) -> str | None:
    """Return one line, None if nothing changed."""
    changes = _changes(
        {replica.identity: replica for replica in before},
        {replica.identity: replica for replica in after},
    )
    if not changes:
        return None
    if (others := len(changes) - _MAX_NAMED) > 0:
        changes[_MAX_NAMED:] = [f"{others} other changes"]
    num_ready = sum(_condition(replica) == "ready" for replica in after)
    return f"{', '.join(changes)}; {num_ready} of {len(after)} ready"


def _changes(before: dict[Identity, Replica], after: dict[Identity, Replica]) -> list[str]:
    gone = [replica for identity, replica in before.items() if identity not in after]
    new = [replica for identity, replica in after.items() if identity not in before]
    return [
        *(f"{replica.name} removed" for replica in gone),
        *(f"{replica.name} added ({_condition(replica)})" for replica in new),
        *(
            f"{replica.name} {_condition(replica)}"
            for identity, replica in after.items()
            if identity in before and before[identity] != replica
        ),
    ]


def _condition(replica: Replica) -> str:
    if replica.terminating:
        return "terminating" if replica.serving else "terminating, not serving"
    return "ready" if replica.ready and replica.serving else "not ready"
