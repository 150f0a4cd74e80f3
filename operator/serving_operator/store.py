"""What the watches have told, reduced to what decisions need: a hint, never the last word.

A name only moves forward: nothing that is on its way, an event, a list or the answer to our own
write, undoes what is newer, be it that the object is gone. What a watch missed is repaired by a
refresh, which replaces everything by what the API server lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from serving_contract.kubernetes import LABEL_COMPONENT, LABEL_NAME, REPLICA, ROUTER
from serving_operator import naming
from serving_operator.body import Body, fields, text
from serving_operator.kinds import POD, SERVING_DEPLOYMENT
from serving_operator.observed import Child, Pod

Key = tuple[str, str]
"""Namespace and name of a ServingDeployment."""
Identity = tuple[str, str, str]
"""Kind, namespace and name of any object."""
_GONE: Final = ""
"""Stands for the uid of what is not there any more."""


@dataclass(slots=True)
class Family:
    """One ServingDeployment and its children."""

    body: Body | None = None
    pods: dict[str, Pod] = field(default_factory=dict)
    routers: dict[str, Pod] = field(default_factory=dict)
    children: dict[tuple[str, str], Child] = field(default_factory=dict)


class Store:
    """The families by key."""

    def __init__(self) -> None:
        self._families: dict[Key, Family] = {}
        self._seen: dict[Identity, tuple[str, int]] = {}
        self._settled: dict[str, str] = {}
        self._touched: set[Identity] | None = None

    def present(self) -> list[Key]:
        """Return the ServingDeployments that are there."""
        return [key for key, family in self._families.items() if family.body is not None]

    def family(self, key: Key) -> Family:
        """Return what is known; empty if nothing is."""
        return self._families.get(key) or Family()

    def put(self, kind: str, body: Mapping[str, object], key: Key | None = None) -> Key | None:
        """Take in an object as it now is; returns whose it is, None if nobody's.

        Args:
            kind: its kind.
            body: the object.
            key: whose it is, where its labels do not say so.
        """
        key = key or key_of(kind, body)
        identity = _identity(kind, body)
        if key is None or not self._is_news(identity, body):
            return key
        family = self._families.setdefault(key, Family())
        if kind == SERVING_DEPLOYMENT.name:
            family.body = _kept(body)
        elif kind == POD.name:
            _shelf(family, key, body)[identity[2]] = Pod.of(body)
        else:
            family.children[kind, identity[2]] = self._child(kind, body)
        return key

    def put_listed(self, kind: str, body: Mapping[str, object]) -> None:
        """Take in what a refresh lists: it is the truth but for what has changed since it began.

        Also if all seemed newer before: then the API server's own state was set back.
        """
        identity = _identity(kind, body)
        if self._touched is not None and identity not in self._touched:
            self._seen.pop(identity, None)
        self.put(kind, body)

    def _child(self, kind: str, body: Mapping[str, object]) -> Child:
        settled = self._settled.get(text(body, "metadata", "uid"))
        return Child.of(body, kind, settled_fields=settled)

    def _is_news(self, identity: Identity, body: Mapping[str, object]) -> bool:
        version = _version(body)
        before = self._seen.get(identity)
        if before is not None and version < before[1]:
            return False
        self._seen[identity] = (text(body, "metadata", "uid"), version)
        self._touch(identity)
        return True

    def _touch(self, identity: Identity) -> None:
        if self._touched is not None:
            self._touched.add(identity)

    def settle(self, kind: str, body: Mapping[str, object]) -> None:
        """Take in the answer to our own apply: what it says that we own is how it should be."""
        child = Child.of(body, kind)
        self._settled[child.uid] = child.fields or ""
        self.put(kind, body)

    def drop(self, kind: str, namespace: str, name: str, uid: str = "") -> None:
        """Forget an object that is gone, but not how new it was; another one by now stays."""
        identity = (kind, namespace, name)
        seen = self._seen.get(identity)
        if seen is None or (uid and seen[0] != uid):
            return
        self._touch(identity)
        self._seen[identity] = (_GONE, seen[1])
        self._settled.pop(seen[0], None)
        self._remove(identity)

    def _remove(self, identity: Identity) -> None:
        kind, namespace, name = identity
        for key, family in list(self._families.items()):
            if key[0] != namespace:
                continue
            if kind == SERVING_DEPLOYMENT.name and key[1] == name:
                family.body = None
            elif kind == POD.name:
                family.pods.pop(name, None)
                family.routers.pop(name, None)
            else:
                family.children.pop((kind, name), None)
            if family == Family():
                del self._families[key]

    def uid(self, kind: str, namespace: str, name: str) -> str:
        """Return the uid of an object that is there; empty if none is."""
        return self._seen.get((kind, namespace, name), (_GONE, 0))[0]

    def replace_pods(
        self, key: Key, before: Mapping[str, Pod], bodies: Iterable[Mapping[str, object]]
    ) -> None:
        """Take a consistent list of a ServingDeployment's pods for the whole truth.

        Args:
            key: the ServingDeployment.
            before: the pods that were known when the list was asked for.
            bodies: the list.
        """
        listed = set()
        for body in bodies:
            listed.add(text(body, "metadata", "uid"))
            self.put(POD.name, body, key)
        for name, pod in before.items():
            if pod.uid not in listed:
                self.drop(POD.name, key[0], name, pod.uid)

    def begin_refresh(self) -> None:
        """Note from now on what changes beside the lists that are being read."""
        self._touched = set()

    def end_refresh(self, kinds: Iterable[str], listed: set[Identity]) -> None:
        """Drop what the lists do not hold, but for what has changed since they were begun."""
        touched, self._touched = self._touched or set(), None
        wanted = set(kinds)
        for identity in [one for one in self._seen if one[0] in wanted]:
            if identity not in listed and identity not in touched:
                self.drop(*identity)
                del self._seen[identity]


def _identity(kind: str, body: Mapping[str, object]) -> Identity:
    return kind, text(body, "metadata", "namespace"), text(body, "metadata", "name")


def key_of(kind: str, body: Mapping[str, object]) -> Key | None:
    """Return the ServingDeployment that an object belongs to by its labels."""
    namespace = text(body, "metadata", "namespace")
    if kind == SERVING_DEPLOYMENT.name:
        return namespace, text(body, "metadata", "name")
    owner = text(body, "metadata", "labels", LABEL_NAME)
    return (namespace, owner) if owner else None


def _shelf(family: Family, key: Key, body: Mapping[str, object]) -> dict[str, Pod]:
    """Tell routers' pods from replicas'; what has a replica's name is in its way in any case."""
    is_router = text(body, "metadata", "labels", LABEL_COMPONENT) == ROUTER
    name = text(body, "metadata", "name")
    return family.routers if is_router and naming.index_of(name, key[1]) is None else family.pods


def replica_selector(name: str) -> str:
    """Return the selector of one ServingDeployment's pods."""
    return ",".join(f"{k}={v}" for k, v in naming.selector(name, REPLICA).items())


def _kept(body: Mapping[str, object]) -> Body:
    """Leave out what nobody here reads, such as managedFields."""
    metadata = fields(body, "metadata")
    kept = ("name", "namespace", "uid", "generation", "resourceVersion", "deletionTimestamp")
    return {
        "apiVersion": body.get("apiVersion"),
        "kind": SERVING_DEPLOYMENT.name,
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": body.get("spec"),
        "status": body.get("status", {}),
    }


def _version(body: Mapping[str, object]) -> int:
    """Return the resourceVersion as a number: comparable since KEP-5504, and before in fact."""
    version = text(body, "metadata", "resourceVersion")
    return int(version) if version.isdecimal() else 0
