from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.router.slices import GONE, LEAVING, LOADING, READY, Body, endpoint, slice_of

from serving_router.endpoint_slice import EndpointSlice, parse_event
from serving_router.endpoints import replicas_of
from serving_router.known_slices import KnownSlices
from serving_router.replica import Replica


def read(*bodies: Body) -> list[EndpointSlice]:
    return [EndpointSlice.model_validate(body) for body in bodies]


def urls(*bodies: Body) -> list[str]:
    return [replica.url for replica in replicas_of(read(*bodies))]


CONDITIONS: dict[str, tuple[dict[str, bool] | None, tuple[bool, bool, bool]]] = {
    "all said": (READY, (True, True, False)),
    "no conditions at all": (None, (True, True, False)),
    "nothing said": ({}, (True, True, False)),
    "ready not said": ({"serving": True, "terminating": False}, (True, True, False)),
    "serving not said, ready": ({"ready": True}, (True, True, False)),
    "serving not said, not ready": ({"ready": False}, (False, False, False)),
    "loading": (LOADING, (False, False, False)),
    "leaving": (LEAVING, (False, True, True)),
    "left": (GONE, (False, False, True)),
    "ready though it does not serve": ({"ready": True, "serving": False}, (True, False, False)),
}


@pytest.mark.parametrize(("conditions", "read_as"), CONDITIONS.values(), ids=CONDITIONS.keys())
def test_conditions_mean_what_the_api_says(
    conditions: dict[str, bool] | None, read_as: tuple[bool, bool, bool]
) -> None:
    [replica] = replicas_of(read(slice_of("s", endpoint("10.0.0.1", "m-0", None, conditions))))
    assert (replica.ready, replica.serving, replica.terminating) == read_as


def test_replica_is_named_and_known_by_its_pod() -> None:
    [replica] = replicas_of(read(slice_of("s", endpoint("10.0.0.1", "m-0", "abc"))))
    assert replica == Replica(url="http://10.0.0.1:8000", pod="m-0", uid="abc")


def test_endpoint_without_a_pod_is_known_by_its_address() -> None:
    twice = slice_of("s", endpoint("10.0.0.1")), slice_of("t", endpoint("10.0.0.1"))
    assert replicas_of(read(*twice)) == (Replica(url="http://10.0.0.1:8000"),)


PORTS: dict[str, tuple[list[Body] | None, list[str]]] = {
    "the one named http": (
        [{"name": "metrics", "port": 9, "protocol": "TCP"}, {"name": "http", "port": 80}],
        ["http://10.0.0.1:80"],
    ),
    "of another name": ([{"name": "web", "port": 80, "protocol": "TCP"}], []),
    "without a name": ([{"port": 80, "protocol": "TCP"}], []),
    "UDP": ([{"name": "http", "port": 80, "protocol": "UDP"}], []),
    "without a number": ([{"name": "http", "protocol": "TCP"}], []),
    "none": ([], []),
}


@pytest.mark.parametrize(("ports", "found"), PORTS.values(), ids=PORTS.keys())
def test_port_is_the_one_that_the_slice_calls_http(ports: list[Body], found: list[str]) -> None:
    assert urls(slice_of("s", endpoint("10.0.0.1", "m-0"), ports=ports)) == found


FAMILIES: dict[str, tuple[list[Body], list[str]]] = {
    "IPv6 is in brackets": (
        [slice_of("s", endpoint("fd00::1", "m-0"), family="IPv6")],
        ["http://[fd00::1]:8000"],
    ),
    "IPv4 is preferred": (
        [
            slice_of("s", endpoint("fd00::1", "m-0"), family="IPv6", version=9),
            slice_of("t", endpoint("10.0.0.1", "m-0"), version=1),
        ],
        ["http://10.0.0.1:8000"],
    ),
    "IPv4 is preferred whatever its condition": (
        [
            slice_of("s", endpoint("fd00::1", "m-0"), family="IPv6"),
            slice_of("t", endpoint("10.0.0.1", "m-0", None, LOADING)),
        ],
        ["http://10.0.0.1:8000"],
    ),
    "names are no addresses": ([slice_of("s", endpoint("a.b", "m-0"), family="FQDN")], []),
    "the first of several addresses": (
        [slice_of("s", endpoint("10.0.0.1", "m-0") | {"addresses": ["10.0.0.2", "10.0.0.3"]})],
        ["http://10.0.0.2:8000"],
    ),
    "no address": ([slice_of("s", {"addresses": []})], []),
    "null lists": ([slice_of("s") | {"endpoints": None, "ports": None}], []),
}


@pytest.mark.parametrize(("bodies", "found"), FAMILIES.values(), ids=FAMILIES.keys())
def test_each_pod_has_one_address(bodies: list[Body], found: list[str]) -> None:
    assert urls(*bodies) == found


def test_slices_of_one_service_are_merged_in_the_order_of_the_pods() -> None:
    first = slice_of("s", endpoint("10.0.0.3", "m-10"), endpoint("10.0.0.1", "m-0"))
    second = slice_of("t", endpoint("10.0.0.2", "m-2"))
    replicas = replicas_of(read(first, second))
    assert [replica.pod for replica in replicas] == ["m-0", "m-2", "m-10"]


TWICE: dict[str, tuple[list[Body], tuple[str, bool]]] = {
    "the ready one of a pod that moves": (
        [
            slice_of("s", endpoint("10.0.0.1", "m-0"), version=1),
            slice_of("t", endpoint("10.0.0.1", "m-0", None, LOADING), version=2),
        ],
        ("http://10.0.0.1:8000", True),
    ),
    "the newest of equal ones": (
        [
            slice_of("s", endpoint("10.0.0.1", "m-0"), version=9),
            slice_of("t", endpoint("10.0.0.2", "m-0"), version=10),
        ],
        ("http://10.0.0.2:8000", True),
    ),
    "the serving one of two that are not ready": (
        [
            slice_of("s", endpoint("10.0.0.2", "m-0", None, LOADING), version=9),
            slice_of("t", endpoint("10.0.0.1", "m-0", None, LEAVING), version=1),
        ],
        ("http://10.0.0.1:8000", False),
    ),
    "the ready one of two pods at one address": (
        [
            slice_of("s", endpoint("10.0.0.1", "m-0", "new"), version=1),
            slice_of("t", endpoint("10.0.0.1", "m-1", "old", GONE), version=2),
        ],
        ("http://10.0.0.1:8000", True),
    ),
}


@pytest.mark.parametrize(("bodies", "kept"), TWICE.values(), ids=TWICE.keys())
def test_what_is_named_twice_comes_once(bodies: list[Body], kept: tuple[str, bool]) -> None:
    for order in (bodies, bodies[::-1]):
        [replica] = replicas_of(read(*order))
        assert (replica.url, replica.ready) == kept


conditions = st.sampled_from([READY, LOADING, LEAVING, GONE, {}])
endpoints = st.builds(
    lambda host, pod, said: endpoint(f"10.0.0.{host}", f"m-{pod}", None, said),
    st.integers(1, 4),
    st.integers(0, 4),
    conditions,
)


@given(data=st.data())
def test_events_in_any_order_lead_to_what_a_list_shows(data: st.DataObject) -> None:
    """Each slice has its own history; the watch may bring these histories interleaved at will."""
    known = KnownSlices()
    now: dict[str, Body] = {}
    for version in range(1, data.draw(st.integers(1, 12)) + 1):
        name = data.draw(st.sampled_from("stuv"))
        body = slice_of(name, *data.draw(st.lists(endpoints, max_size=3)), version=version)
        is_deleted = name in now and data.draw(st.booleans())
        kind = "DELETED" if is_deleted else "MODIFIED" if name in now else "ADDED"
        known.apply(parse_event(json.dumps({"type": kind, "object": body}).encode()))
        if is_deleted:
            del now[name]
        else:
            now[name] = body
    listed = KnownSlices()
    listed.replace(read(*data.draw(st.permutations(list(now.values())))), known.version or "")
    assert known.replicas() == listed.replicas()


@given(bodies=st.lists(st.lists(endpoints, max_size=4), max_size=4))
def test_no_pod_and_no_address_ever_comes_twice(bodies: list[list[Any]]) -> None:
    slices = [slice_of(f"s{n}", *body, version=n) for n, body in enumerate(bodies)]
    replicas = replicas_of(read(*slices))
    assert len({replica.uid for replica in replicas}) == len(replicas)
    assert len({replica.url for replica in replicas}) == len(replicas)
    assert {replica.uid for replica in replicas} <= {
        entry["targetRef"]["uid"] for body in bodies for entry in body
    }
