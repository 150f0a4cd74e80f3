"""EndpointSlices (discovery.k8s.io/v1) and the events of their watch, as far as they are read.

Conditions may be absent and then mean what the API's documentation says of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic.alias_generators import to_camel

from serving_router.errors import DiscoveryFailed, HistoryGone, MalformedAnswer

M = TypeVar("M", bound=BaseModel)


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class Conditions(_Fields):
    """What the endpoint can do; None = not said."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None

    @property
    def is_ready(self) -> bool:
        """Return whether new requests are welcome; not said means yes."""
        return self.ready is not False

    @property
    def is_serving(self) -> bool:
        """Return whether it answers, terminating or not; not said means as ready."""
        return self.is_ready if self.serving is None else self.serving

    @property
    def is_terminating(self) -> bool:
        """Return whether it is being deleted; not said means no."""
        return self.terminating is True


class TargetRef(_Fields):
    """The object behind an endpoint, a pod."""

    name: str | None = None
    uid: str | None = None


class Endpoint(_Fields):
    """One pod in one slice; its addresses are interchangeable."""

    addresses: tuple[str, ...]
    conditions: Conditions | None = None
    target_ref: TargetRef | None = None


class Port(_Fields):
    """A port of every endpoint of the slice."""

    name: str | None = None
    port: int | None = None
    protocol: str | None = None


class Metadata(_Fields):
    """Name, unique among the slices of a namespace, and version."""

    name: str
    resource_version: str


class EndpointSlice(_Fields):
    """Some endpoints of a Service, all of one address family and with the same ports."""

    metadata: Metadata
    address_type: str
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[Port, ...] | None = None


class ListMetadata(_Fields):
    """Where a watch may begin, and how to ask for the next page; empty = this is the last one."""

    resource_version: str
    next_page: str = Field(default="", alias="continue")


class SliceList(_Fields):
    """One page of a list."""

    metadata: ListMetadata
    items: tuple[EndpointSlice, ...] | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """A slice is new or another."""

    slice: EndpointSlice


@dataclass(frozen=True, slots=True)
class Deleted:
    """A slice is gone; its last state tells which."""

    slice: EndpointSlice


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Nothing has changed up to this version."""

    resource_version: str


Event = Changed | Deleted | Bookmark


class _VersionOnly(_Fields):
    resource_version: str


class _BookmarkObject(_Fields):
    metadata: _VersionOnly


class Status(_Fields):
    """The API server's refusal."""

    code: int | None = None
    message: str = ""


class _Line(_Fields):
    type: str
    object: dict[str, JsonValue]


def parse_list(body: bytes) -> SliceList:
    """Read one page.

    Raises:
        MalformedAnswer: it is none.
    """
    try:
        return SliceList.model_validate_json(body)
    except ValidationError as error:
        raise _malformed(error) from error


def parse_event(line: bytes) -> Event:
    """Read one line of a watch.

    Raises:
        HistoryGone: the watch began at a version that the API server no longer knows.
        DiscoveryFailed: the API server ends the watch for another reason.
        MalformedAnswer: it is no event.
    """
    try:
        return _event(_Line.model_validate_json(line))
    except ValidationError as error:
        raise _malformed(error) from error


def _event(line: _Line) -> Event:
    match line.type:
        case "ADDED" | "MODIFIED":
            return Changed(EndpointSlice.model_validate(line.object))
        case "DELETED":
            return Deleted(EndpointSlice.model_validate(line.object))
        case "BOOKMARK":
            return Bookmark(_BookmarkObject.model_validate(line.object).metadata.resource_version)
        case "ERROR":
            raise _failure(Status.model_validate(line.object))
        case _:
            raise MalformedAnswer(f"the API server sent an event of type {line.type!r}")


def _failure(status: Status) -> DiscoveryFailed:
    message = f"the API server ended the watch with {status.code}: {status.message}"
    return (HistoryGone if status.code == HTTPStatus.GONE else DiscoveryFailed)(message)


def _malformed(error: ValidationError) -> MalformedAnswer:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"])) or "JSON"
    return MalformedAnswer(f"the API server's answer cannot be read: {where}: {first['msg']}")
