from __future__ import annotations

import json

import pytest
from tests.router.slices import Body, endpoint, slice_of

from serving_router.endpoint_slice import Bookmark, Changed, Deleted, parse_event, parse_list
from serving_router.errors import DiscoveryFailed, HistoryGone, MalformedAnswer
from serving_router.known_slices import KnownSlices

ONE = slice_of("s", endpoint("10.0.0.1", "m-0"), version=7)


def line(kind: str, body: Body) -> bytes:
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


@pytest.mark.parametrize(
    ("kind", "expected"), [("ADDED", Changed), ("MODIFIED", Changed), ("DELETED", Deleted)]
)
def test_event_carries_its_slice(kind: str, expected: type[Changed | Deleted]) -> None:
    event = parse_event(line(kind, ONE))
    assert isinstance(event, expected)
    assert event.slice.metadata.name == "s"


def test_bookmark_carries_its_version_alone() -> None:
    """An API server's bookmark holds an EndpointSlice with nothing else in it."""
    empty = {"kind": "EndpointSlice", "metadata": {"resourceVersion": "12"}, "endpoints": None}
    assert parse_event(line("BOOKMARK", empty)) == Bookmark("12")


ERRORS = {
    "too old": (410, HistoryGone),
    "server error": (500, DiscoveryFailed),
    "without a code": (None, DiscoveryFailed),
}


@pytest.mark.parametrize(("code", "expected"), ERRORS.values(), ids=ERRORS.keys())
def test_error_event_ends_the_watch(code: int | None, expected: type[DiscoveryFailed]) -> None:
    with pytest.raises(DiscoveryFailed, match="too old resource version") as raised:
        parse_event(line("ERROR", {"code": code, "message": "too old resource version: 1 (9)"}))
    assert type(raised.value) is expected


MALFORMED = {
    "half a line": b'{"type": "ADDED", "obj',
    "nothing": b"\n",
    "not UTF-8": b"\xff\n",
    "a list": b"[]\n",
    "no object": b'{"type": "ADDED"}\n',
    "unknown type": line("RENAMED", ONE),
    "slice without a name": line("ADDED", {"metadata": {}}),
    "slice with addresses that are none": line("ADDED", ONE | {"endpoints": [{"addresses": 1}]}),
    "bookmark without a version": line("BOOKMARK", {"metadata": {}}),
}


@pytest.mark.parametrize("malformed", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_line_is_an_error_of_discovery(malformed: bytes) -> None:
    with pytest.raises(MalformedAnswer) as raised:
        parse_event(malformed)
    assert "\n" not in str(raised.value)
    assert raised.value.needs_list


def test_page_tells_how_to_get_the_next() -> None:
    page = parse_list(
        json.dumps(
            {"metadata": {"resourceVersion": "9", "continue": "abc"}, "items": [ONE]}
        ).encode()
    )
    assert page.metadata.next_page == "abc"
    assert page.items is not None
    assert page.items[0].metadata.resource_version == "7"


def test_malformed_list_is_an_error_of_discovery() -> None:
    with pytest.raises(MalformedAnswer, match="items"):
        parse_list(b'{"metadata": {"resourceVersion": "9"}, "items": 3}')


def test_version_follows_every_event() -> None:
    known = KnownSlices()
    known.replace([], "5")
    seen = [known.version]
    for event in (line("ADDED", ONE), line("BOOKMARK", {"metadata": {"resourceVersion": "9"}})):
        known.apply(parse_event(event))
        seen.append(known.version)
    known.forget_version()
    assert [*seen, known.version] == ["5", "7", "9", None]
    assert len(known.replicas()) == 1


def test_list_replaces_everything() -> None:
    known = KnownSlices()
    known.apply(parse_event(line("ADDED", ONE)))
    known.replace([], "9")
    assert known.replicas() == ()


def test_deleting_a_slice_that_is_not_known_is_no_harm() -> None:
    known = KnownSlices()
    known.apply(parse_event(line("DELETED", ONE)))
    assert known.replicas() == ()
