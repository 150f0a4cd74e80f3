"""What is known of a Service's EndpointSlices: replaced by a list, moved on by events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from serving_router.endpoint_slice import Bookmark, Changed, Deleted, EndpointSlice, Event
from serving_router.endpoints import replicas_of
from serving_router.replica import Replica


class KnownSlices:
    """The slices by name.

    Attributes:
        version: where a watch goes on; None = only a list can tell what is.
    """

    def __init__(self) -> None:
        self.version: str | None = None
        self._slices: dict[str, EndpointSlice] = {}

    def replace(self, slices: Iterable[EndpointSlice], version: str) -> None:
        """Take a whole list: what is not in it is gone."""
        self._slices = {one.metadata.name: one for one in slices}
        self.version = version

    def apply(self, event: Event) -> None:
        """Take in what a watch brought."""
        match event:
            case Changed(one):
                self._slices[one.metadata.name] = one
                self.version = one.metadata.resource_version
            case Deleted(one):
                self._slices.pop(one.metadata.name, None)
                self.version = one.metadata.resource_version
            case Bookmark(version):
                self.version = version
            case _:
                assert_never(event)

    def forget_version(self) -> None:
        """Ask for a list next; until it comes, the slices stay."""
        self.version = None

    def replicas(self) -> tuple[Replica, ...]:
        """Return the replicas that are in the slices."""
        return replicas_of(self._slices.values())
