"""A replica as the router sees it: where it is, what discovery says of it, what it owes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

Identity = tuple[str, str | None]
"""URL and pod uid: together they are the same for as long as it is the same pod there."""


class State(StrEnum):
    """What `/v1/load` shows of a replica."""

    READY = "ready"
    DRAINING = "draining"
    STALE = "stale"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One endpoint; the three conditions are those of an EndpointSlice.

    Attributes:
        url: `http://host:port`, without a path or a trailing slash.
        pod: the pod's name; None outside a cluster.
        uid: the pod's; another pod at the same address is another replica. None outside a cluster.
        serving: it still answers, also while it terminates.
    """

    url: str
    pod: str | None = None
    uid: str | None = None
    ready: bool = True
    serving: bool = True
    terminating: bool = False

    @property
    def name(self) -> str:
        """Return the pod's name, else host:port."""
        return self.pod or urlsplit(self.url).netloc

    @property
    def identity(self) -> Identity:
        """Return what tells it from another pod that gets its address later."""
        return self.url, self.uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a choice may depend on: the numbers of one routable replica at one moment.

    Attributes:
        pending_tokens: last report and unacknowledged reservations, or the router's own ledger.
        requests: on this replica as far as is known; `in_flight` are this router's own.
        waiting: sequences that wait there; None without a fresh report.
        tokens_per_second: how fast the replica works off its tokens; 0.0 if that is not known.
        last_chosen: number of the choice that took it last; 0 = never.
    """

    url: str
    pending_tokens: int = 0
    requests: int = 0
    in_flight: int = 0
    waiting: int | None = None
    tokens_per_second: float = 0.0
    last_chosen: int = 0
