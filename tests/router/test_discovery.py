from __future__ import annotations

import pytest

from serving_router.discovery import LocalDiscovery, StaticDiscovery, parse_replicas
from serving_router.errors import InvalidReplicas
from serving_router.replica import Replica

A, B = Replica(url="http://a:1"), Replica(url="http://b:2")


def test_list_of_urls_is_read() -> None:
    assert parse_replicas("http://a:1, http://b:2/") == (A, B)


def test_ipv6_url_is_read() -> None:
    [replica] = parse_replicas("http://[::1]:8000")
    assert replica.name == "[::1]:8000"


@pytest.mark.parametrize(
    "text",
    ["", "a:1", "ftp://a", "http://", "http://a/v1", "http://a?x=1", "http://u:p@a", "http://a:x"],
)
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(InvalidReplicas, match="is not of the form http://HOST:PORT"):
        parse_replicas(text)


def test_replica_named_twice_is_refused() -> None:
    with pytest.raises(InvalidReplicas, match="http://a:1 is named twice"):
        parse_replicas("http://a:1,http://a:1/")


def test_replica_without_a_pod_is_named_by_host_and_port() -> None:
    assert A.name == "a:1"
    assert Replica(url="http://a:1", pod="m-0").name == "m-0"


async def test_static_list_comes_once() -> None:
    assert [replicas async for replicas in StaticDiscovery([A, B]).watch()] == [(A, B)]


async def test_local_set_comes_at_once_and_after_each_change() -> None:
    discovery = LocalDiscovery()
    watch = discovery.watch()
    assert await anext(watch) == ()
    discovery.set([A])
    assert await anext(watch) == (A,)


async def test_set_that_was_replaced_unread_is_skipped() -> None:
    discovery = LocalDiscovery([A])
    watch = discovery.watch()
    await anext(watch)
    discovery.set([A])
    discovery.set([B])
    assert await anext(watch) == (B,)
