"""Plays the kubelet of nodes without machines: what the real scheduler binds there comes to run.

Pods run and are ready as soon as they are bound, and go as soon as they are deleted, unless the
test has ordered otherwise. Every method may be called from any thread.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

from tests.cluster.api import Api, Body
from tests.cluster.errors import ApiRefused
from tests.cluster.heartbeat import Heartbeat
from tests.cluster.node import now
from tests.cluster.pod_status import (
    Exit,
    Failed,
    Place,
    Running,
    State,
    Succeeded,
    Waiting,
    status_of,
)
from tests.cluster.watch import Watch

_PODS: Final = "/api/v1/pods"
_TICK_S: Final = 0.05
_RETRY_S: Final = 0.2

Predicate = Callable[[Body], bool]


@dataclass(slots=True, kw_only=True)
class _Pod:
    """A pod on one of our nodes, and what was done about it."""

    body: Body
    place: Place
    bound_at: float
    deleted_at: float | None = None
    written: State | None = None
    is_done: bool = False

    @property
    def uid(self) -> str:
        uid: str = self.body["metadata"]["uid"]
        return uid

    @property
    def has_ended(self) -> bool:
        return self.body["status"].get("phase") in ("Failed", "Succeeded")


class Kubelet:
    """The kubelets of some nodes; a context manager, which makes the nodes and removes them.

    Attributes:
        ready_after_s: how long a pod runs before it is ready.
        grace_s: how long a deleted pod stays Terminating, at most its own grace period.
    """

    def __init__(
        self, api: Api, *, nodes: Iterable[str], resources: Mapping[str, str] | None = None
    ) -> None:
        self.ready_after_s = 0.0
        self.grace_s = 0.0
        self._api = api
        self._nodes = frozenset(nodes)
        self._lost: set[str] = set()
        self._orders: list[tuple[Predicate, State]] = []
        self._pods: dict[str, _Pod] = {}
        self._addresses = _addresses()
        # Held while one pod is dealt with, so that an order is in force once it was given.
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._heartbeat = Heartbeat(api, sorted(self._nodes), resources or {})
        self._watch = Watch(api, _PODS, self, {"fieldSelector": "spec.nodeName!="})
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when the nodes are there and Ready."""
        self._heartbeat.start()
        self._watch.start()
        self._thread.start()

    def stop(self) -> None:
        """Remove the nodes and what ran on them."""
        self._stopping.set()
        self._thread.join()
        self._watch.stop()
        with contextlib.suppress(OSError):  # a test may leave its own API server dead
            self._heartbeat.stop()
            self._remove_pods()

    def order(self, applies: Predicate, state: State) -> None:
        """Give pods for which `applies` holds a state, whenever they come; the newest order wins.

        A pod that has failed stays so.
        """
        with self._lock:
            self._orders.insert(0, (applies, state))

    def release(self) -> None:
        """Forget every order."""
        with self._lock:
            self._orders.clear()

    def hold(self, applies: Predicate) -> None:
        """Let pods for which `applies` holds run, but never be ready."""
        self.order(applies, Running(is_ready=False))

    def set_ready(self, namespace: str, name: str, is_ready: bool) -> None:
        """Let the pod that has this name now be ready or not."""
        self._order_one(namespace, name, Running(is_ready=is_ready))

    def waiting(
        self,
        namespace: str,
        name: str,
        reason: str,
        message: str = "",
        last_exit: Exit | None = None,
    ) -> None:
        """Let the first container of the pod that has this name now wait.

        `ImagePullBackOff` is such a reason; `CrashLoopBackOff` comes with a last exit.
        """
        self._order_one(
            namespace, name, Waiting(reason=reason, message=message, last_exit=last_exit)
        )

    def fail(self, namespace: str, name: str, reason: str, message: str = "") -> None:
        """Let the pod that has this name now fail for good; its successor is another pod."""
        self._order_one(namespace, name, Failed(reason=reason, message=message))

    def lose(self, node: str) -> None:
        """Let a node fall silent: no heartbeat, and nothing more is done about its pods."""
        with self._lock:
            self._lost.add(node)
            self._heartbeat.silence(node)

    def find(self, node: str) -> None:
        """Let a lost node come back; what was deleted meanwhile goes."""
        with self._lock:
            self._lost.discard(node)
            self._heartbeat.resume(node)
            for pod in self._pods.values():
                if pod.body["spec"]["nodeName"] == node:
                    pod.written = None

    def replace(self, items: list[Body]) -> None:
        """Part of Reader."""
        with self._lock:
            listed = {item["metadata"]["uid"] for item in items}
            self._pods = {uid: pod for uid, pod in self._pods.items() if uid in listed}
            for item in items:
                self.event("MODIFIED", item)

    def event(self, kind: str, item: Body) -> None:
        """Part of Reader."""
        uid = item["metadata"]["uid"]
        with self._lock:
            if kind == "DELETED":
                self._pods.pop(uid, None)
            elif item["spec"]["nodeName"] in self._nodes:
                self._take(uid, item)

    def _take(self, uid: str, item: Body) -> None:
        if uid not in self._pods:
            place = Place(address=next(self._addresses), started=now())
            self._pods[uid] = _Pod(body=item, place=place, bound_at=time.monotonic())
        pod = self._pods[uid]
        # The answer to our own write may be newer than an event that was on its way.
        pod.body = max(pod.body, item, key=_version)
        if pod.deleted_at is None and "deletionTimestamp" in item["metadata"]:
            pod.deleted_at = time.monotonic()

    def _order_one(self, namespace: str, name: str, state: State) -> None:
        there = self._api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
        uid = there["metadata"]["uid"]
        self.order(lambda pod: bool(pod["metadata"]["uid"] == uid), state)

    def _run(self) -> None:
        while not self._stopping.wait(_TICK_S):
            try:
                self._deal_with_all()
            except (OSError, http.client.HTTPException):
                self._stopping.wait(_RETRY_S)  # the API server is away
            except ApiRefused as refused:
                if not refused.is_passing:
                    raise

    def _deal_with_all(self) -> None:
        with self._lock:
            uids = list(self._pods)
        for uid in uids:
            with self._lock:
                pod = self._pods.get(uid)
                if pod is not None and pod.body["spec"]["nodeName"] not in self._lost:
                    self._deal_with(pod)

    def _deal_with(self, pod: _Pod) -> None:
        if pod.is_done:
            return
        if pod.deleted_at is not None and self._grace_is_over(pod.body, pod.deleted_at):
            self._end(pod)
        elif not pod.has_ended:
            self._write(pod, self._state_of(pod))

    def _grace_is_over(self, body: Body, deleted_at: float) -> bool:
        own_s: int = body["metadata"].get("deletionGracePeriodSeconds", 0)
        grace_s = min(self.grace_s, own_s)
        return time.monotonic() >= deleted_at + grace_s

    def _state_of(self, pod: _Pod) -> State:
        for applies, state in self._orders:
            if applies(pod.body):
                return state
        return Running(is_ready=time.monotonic() >= pod.bound_at + self.ready_after_s)

    def _end(self, pod: _Pod) -> None:
        if not pod.has_ended:
            self._write(pod, Succeeded())
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}}
        with _gone_is_fine():
            self._api.delete(_path(pod.body), options)
        pod.is_done = True

    def _write(self, pod: _Pod, state: State) -> None:
        if state == pod.written:
            return
        status = status_of(pod.body, state, pod.place, now())
        change = {"metadata": {"uid": pod.uid}, "status": status}
        with _gone_is_fine():
            pod.body = self._api.patch(f"{_path(pod.body)}/status", change, "strategic")
        pod.written = state

    def _remove_pods(self) -> None:
        for item in self._api.get(_PODS, {"fieldSelector": "spec.nodeName!="})["items"]:
            if item["spec"]["nodeName"] in self._nodes:
                with _gone_is_fine():
                    self._api.delete(_path(item), {"gracePeriodSeconds": 0})


def _path(pod: Body) -> str:
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


def _version(pod: Body) -> int:
    return int(pod["metadata"]["resourceVersion"])


@contextlib.contextmanager
def _gone_is_fine() -> Iterator[None]:
    """The pod is not there, or another one has its name."""
    try:
        yield
    except ApiRefused as refused:
        if refused.status not in (404, 409):
            raise


def _addresses() -> Iterator[str]:
    # Another kubelet's pods, in the same cluster, are to have other addresses.
    network = f"10.{random.randint(100, 250)}"
    return (f"{network}.{number // 250}.{number % 250 + 1}" for number in itertools.count())
