"""The cluster as a reconcile uses it: looks again, carries actions out, writes status and Events.

Every answer goes into the store at once, so that the next look does not wait for the watch.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from serving_contract.kubernetes import (
    API_VERSION,
    LABEL_MANAGED_BY,
    OPERATOR,
)
from serving_contract.status import Status
from serving_operator import timestamps
from serving_operator.actions import (
    ApplyChild,
    AskServer,
    CreateChild,
    CreatePod,
    DeleteChild,
    DeletePod,
    Happening,
    TakeOver,
)
from serving_operator.api import ApiClient
from serving_operator.body import Body, at, fields, items, number, text
from serving_operator.errors import ApiError, Refused
from serving_operator.kinds import CHILD_KINDS, EVENT, POD, SERVING_DEPLOYMENT, WATCHED, Kind
from serving_operator.observed import Verdict, is_from_post
from serving_operator.store import Identity, Key, Store, replica_selector
from serving_operator.subject import Subject

_log = logging.getLogger(__name__)

_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_INVALID: Final = 422
_SERVER_ERROR: Final = 500
_GRACE: Final = "deletionGracePeriodSeconds"
_PASSING: Final = ("exceeded quota", "error looking up service account")
"""Of a 403, what another try may not meet: nothing is wrong with the pod."""
_WRONG: Final = frozenset({_BAD_REQUEST, _INVALID})


class Cluster:
    """The API server and what is known of it.

    Args:
        api: the client.
        store: gets every answer.
        namespaces: those that are served; none = all.
    """

    def __init__(self, api: ApiClient, store: Store, namespaces: tuple[str, ...]) -> None:
        self._api = api
        self._store = store
        self._scopes: tuple[str | None, ...] = namespaces or (None,)
        self._occupants: dict[Key, set[tuple[str, str]]] = {}

    async def refresh(self) -> None:
        """Replace everything that is known by what the API server lists: one LIST a kind.

        Raises:
            ApiError: a kind could not be listed; the others were.
        """
        self._store.begin_refresh()
        listed: set[Identity] = set()
        read: set[str] = set()
        failure: ApiError | None = None
        try:
            for kind in WATCHED:
                try:
                    for scope in self._scopes:
                        await self._list(kind, scope, listed)
                    read.add(kind.name)
                except ApiError as error:
                    failure = error
        finally:
            self._store.end_refresh(read, listed)
        if failure is not None:
            raise failure

    async def _list(self, kind: Kind, scope: str | None, listed: set[Identity]) -> None:
        async for body in self._api.list_pages(kind.collection(scope), selector_of(kind)):
            name, namespace = text(body, "metadata", "name"), text(body, "metadata", "namespace")
            listed.add((kind.name, namespace, name))
            self._store.put_listed(kind.name, body)

    async def look_again(self, key: Key) -> None:
        """Read a ServingDeployment and its pods from the API server, consistently."""
        await self._read(SERVING_DEPLOYMENT, *key, key)
        collection = POD.collection(key[0])
        before = dict(self._store.family(key).pods)
        pods = [pod async for pod in self._api.list_pages(collection, replica_selector(key[1]))]
        self._store.replace_pods(key, before, pods)
        await self.look_at_occupants(key)

    def forget(self, key: Key) -> None:
        """Look no more at what is in the way of a ServingDeployment that is gone."""
        self._occupants.pop(key, None)

    async def look_at_occupants(self, key: Key) -> None:
        """Read what has a child's name without bearing its labels: no watch tells of it."""
        for kind_name, name in tuple(self._occupants.get(key, ())):
            kind = POD if kind_name == POD.name else CHILD_KINDS[kind_name]
            await self._look_at_occupant(key, kind, name)

    async def _look_at_occupant(self, key: Key, kind: Kind, name: str) -> None:
        body = await self._read(kind, key[0], name, key)
        occupants = self._occupants.setdefault(key, set())
        if body is not None and not _is_watched(body):
            occupants.add((kind.name, name))
            return
        occupants.discard((kind.name, name))
        if not occupants:
            del self._occupants[key]

    async def _read(self, kind: Kind, namespace: str, name: str, key: Key) -> Body | None:
        before = self._store.uid(kind.name, namespace, name)
        try:
            body = await self._api.get(kind.object(namespace, name))
        except Refused as error:
            if error.status != _NOT_FOUND:
                raise
            # What was made since the question is not what the answer is about.
            if before:
                self._store.drop(kind.name, namespace, name, before)
            return None
        self._store.put(kind.name, body, key)
        return body

    async def create_pod(self, subject: Subject, action: CreatePod) -> None:
        """Make a replica's pod.

        Raises:
            Refused: by quota, policy or validation; not because the name is taken.
        """
        await self._create(subject, POD, action.body)

    async def create_child(self, subject: Subject, action: CreateChild) -> None:
        """Make another child.

        Raises:
            Refused: but not because the name is taken.
        """
        await self._create(subject, CHILD_KINDS[text(action.body, "kind")], action.body)

    async def _create(self, subject: Subject, kind: Kind, body: Body) -> None:
        key = (subject.namespace, subject.name)
        try:
            made = await self._api.create(kind.collection(subject.namespace), body)
        except Refused as error:
            if error.reason != "AlreadyExists":
                raise
            await self._look_at_occupant(key, kind, text(body, "metadata", "name"))
            return
        self._store.put(kind.name, made, key)

    async def take_over(self, subject: Subject, action: TakeOver) -> None:
        """Make the fields of our POST those of an apply, as if there had been no POST."""
        kind, name = CHILD_KINDS[action.child.kind], action.child.name
        key = (subject.namespace, subject.name)
        body = await self._read(kind, subject.namespace, name, key)
        metadata = fields(body, "metadata")
        if metadata.get("uid") != action.child.uid:
            return
        kept = {field: metadata[field] for field in ("uid", "resourceVersion")}
        owned = as_applied(items(metadata, "managedFields"))
        patch: Body = {"metadata": {**kept, "managedFields": owned}}
        try:
            made = await self._api.merge(kind.object(subject.namespace, name), patch)
        except Refused as error:
            if error.status not in {_CONFLICT, _NOT_FOUND}:
                raise
            await self._read(kind, subject.namespace, name, key)
            return
        self._store.put(kind.name, made, key)

    async def apply_child(self, subject: Subject, action: ApplyChild) -> None:
        """Apply; what has changed since it was seen is looked at again instead.

        Raises:
            Refused: it is not valid.
        """
        kind = CHILD_KINDS[text(action.body, "kind")]
        name = text(action.body, "metadata", "name")
        try:
            made = await self._api.apply(kind.object(subject.namespace, name), action.body)
        except Refused as error:
            if error.status not in {_CONFLICT, _NOT_FOUND}:
                raise
            await self._read(kind, subject.namespace, name, (subject.namespace, subject.name))
            return
        self._store.settle(kind.name, made)

    async def delete_pod(self, subject: Subject, action: DeletePod) -> bool:
        """Delete a pod as it was seen; False if it has changed since."""
        return await self._delete(
            subject,
            POD,
            action.pod.name,
            action.pod.uid,
            action.pod.resource_version,
            grace_s=0 if action.by_force else None,
        )

    async def delete_child(self, subject: Subject, action: DeleteChild) -> bool:
        """Delete a child as it was seen; False if it has changed since."""
        child = action.child
        kind = CHILD_KINDS[child.kind]
        return await self._delete(subject, kind, child.name, child.uid, child.resource_version)

    async def _delete(
        self,
        subject: Subject,
        kind: Kind,
        name: str,
        uid: str,
        resource_version: str,
        *,
        grace_s: int | None = None,
    ) -> bool:
        key = (subject.namespace, subject.name)
        path = kind.object(subject.namespace, name)
        try:
            left = await self._api.delete(
                path, uid=uid, resource_version=resource_version, grace_s=grace_s
            )
        except Refused as error:
            if error.status not in {_CONFLICT, _NOT_FOUND}:
                raise
            await self._read(kind, subject.namespace, name, key)
            return False
        # Without grace it is gone, though the answer shows it terminating; a watch may have told.
        stays = number(left, "metadata", _GRACE) > 0 or at(left, "metadata", "finalizers")
        if left.get("kind") == kind.name and stays:
            self._store.put(kind.name, left, key)
        else:
            self._store.drop(kind.name, subject.namespace, name, uid)
        return True

    async def ask(self, subject: Subject, action: AskServer) -> Verdict:
        """Ask by dry runs whether the pods could be."""
        return Verdict(
            replica=await self._objection(subject, action.replica),
            router=await self._objection(subject, action.router),
        )

    async def _objection(self, subject: Subject, pod: Body | None) -> str:
        if pod is None:
            return ""
        try:
            await self._api.dry_run(POD.collection(subject.namespace), pod)
        except Refused as error:
            if is_template_error(error) or is_policy(error):
                return error.message
            # What passes, such as a full quota or a webhook that is down, shows at the creation.
            if error.status < _SERVER_ERROR and error.status not in {_FORBIDDEN, _CONFLICT}:
                raise
        return ""

    async def write_status(self, subject: Subject, status: Status) -> bool:
        """Write the status; False if somebody has written the object since it was read."""
        key = (subject.namespace, subject.name)
        patch: Body = {
            "metadata": {"resourceVersion": subject.resource_version, "uid": subject.uid},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        try:
            made = await self._api.merge(f"{SERVING_DEPLOYMENT.object(*key)}/status", patch)
        except Refused as error:
            if error.status not in {_CONFLICT, _NOT_FOUND}:
                raise
            await self._read(SERVING_DEPLOYMENT, *key, key)
            return False
        self._store.put(SERVING_DEPLOYMENT.name, made)
        return True

    async def tell(self, subject: Subject, happening: Happening) -> None:
        """Write an Event about the ServingDeployment; a lost one is no reason to fail."""
        try:
            await self._api.create(EVENT.collection(subject.namespace), _event(subject, happening))
        except Refused as error:
            _log.warning("Event %s of %s: %s", happening.reason, subject.name, error)


_MANAGED: Final = f"{LABEL_MANAGED_BY}={OPERATOR}"


def selector_of(kind: Kind) -> str:
    """Return what selects our objects of a kind; of the pods also those of routers."""
    return "" if kind is SERVING_DEPLOYMENT else _MANAGED


def _is_watched(body: Body) -> bool:
    """Return whether an object bears the label by which the watches select."""
    return text(body, "metadata", "labels", LABEL_MANAGED_BY) == OPERATOR


def as_applied(entries: list[Mapping[str, object]]) -> list[Body]:
    """Return managedFields with our POST counted as an apply, or left out beside a real one."""
    has_applied = any(
        entry.get("manager") == OPERATOR and entry.get("operation") == "Apply" for entry in entries
    )
    kept = [dict(entry) for entry in entries if not (is_from_post(entry) and has_applied)]
    return [{**entry, "operation": "Apply"} if is_from_post(entry) else entry for entry in kept]


def is_template_error(error: Refused) -> bool:
    """Return whether a refusal is about what the object says."""
    violates = error.status == _FORBIDDEN and "PodSecurity" in error.message
    return error.status in _WRONG or violates


def is_policy(error: Refused) -> bool:
    """Return whether an admission policy forbids the object, however much there is already."""
    passes = any(words in error.message for words in _PASSING)
    return error.status == _FORBIDDEN and not passes and not is_leaving(error)


def is_leaving(error: Refused) -> bool:
    """Return whether the namespace is being deleted."""
    return "because it is being terminated" in error.message


def _event(subject: Subject, happening: Happening) -> Body:
    now = timestamps.write(datetime.now(UTC))
    return {
        "apiVersion": "v1",
        "kind": EVENT.name,
        "metadata": {
            "name": f"{subject.name}.{secrets.token_hex(8)}",
            "namespace": subject.namespace,
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": SERVING_DEPLOYMENT.name,
            "name": subject.name,
            "namespace": subject.namespace,
            "uid": subject.uid,
        },
        "type": "Warning" if happening.is_warning else "Normal",
        "reason": happening.reason,
        "message": happening.message[:1024],
        "source": {"component": OPERATOR},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
