"""Answers that arrive late: what is newer stands, be it that the object is gone."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tests.operator.test_store import KEY, KINDS, pod, revision, sdep

from serving_operator.body import Body
from serving_operator.cluster import Cluster
from serving_operator.errors import Refused
from serving_operator.store import Store


def deleted(store: Store, version: int, uid: str = "uid-of-qwen-0") -> None:
    """Take a watch's DELETED event in; its resourceVersion is that of the deletion."""
    store.put("Pod", pod(version, uid=uid))
    store.drop("Pod", "ns", "qwen-0", uid)


def test_list_that_was_asked_for_earlier_brings_no_ghost() -> None:
    store = Store()
    store.put("Pod", pod(5))
    before = dict(store.family(KEY).pods)
    deleted(store, 7)
    store.replace_pods(KEY, before, [pod(6)])
    assert store.family(KEY).pods == {}


def test_answer_to_our_creation_brings_no_ghost() -> None:
    store = Store()
    deleted(store, 7)
    store.put("Pod", pod(5))
    assert store.family(KEY).pods == {}


def test_successor_of_what_is_gone_is_news() -> None:
    store = Store()
    deleted(store, 7)
    store.put("Pod", pod(8, uid="another"))
    assert revision(store) == "8"


def test_pod_that_only_lost_its_label_is_seen_when_it_is_read() -> None:
    """A watch by label tells of a deletion then, and nothing has changed since."""
    store = Store()
    store.put("Pod", pod(5))
    deleted(store, 7)
    store.put("Pod", pod(7), KEY)
    assert revision(store) == "7"


def test_refresh_brings_no_ghost() -> None:
    store = Store()
    store.put("Pod", pod(5))
    store.begin_refresh()
    deleted(store, 7)
    store.put_listed("Pod", pod(5))
    store.end_refresh(KINDS, listed={("Pod", "ns", "qwen-0")})
    assert store.family(KEY).pods == {}


def test_refresh_follows_an_api_server_whose_state_was_set_back() -> None:
    store = Store()
    store.put("Pod", pod(500))
    store.begin_refresh()
    store.put_listed("Pod", pod(40))
    store.end_refresh(KINDS, listed={("Pod", "ns", "qwen-0")})
    assert revision(store) == "40"


def test_what_was_gone_before_a_refresh_is_forgotten_by_it() -> None:
    store = Store()
    deleted(store, 7)
    store.begin_refresh()
    store.end_refresh(KINDS, listed=set())
    assert store._seen == {}


class SlowAnswer:
    """An API server whose answer "not found" is overtaken by the news of a creation."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, path: str) -> Body:
        self._store.put("ServingDeployment", sdep(9))
        raise Refused(404, "NotFound", path)

    async def list_pages(self, path: str, selector: str = "") -> AsyncIterator[Body]:
        for found in list[Body]():
            yield found


async def test_deployment_that_was_made_during_the_question_stays() -> None:
    store = Store()
    cluster = Cluster(SlowAnswer(store), store, ())  # type: ignore[arg-type]
    await cluster.look_again(KEY)
    assert store.present() == [KEY]
