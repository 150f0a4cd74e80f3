"""What was read of a ServingDeployment's children, reduced to what decisions depend on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from serving_contract.kubernetes import (
    ANNOTATION_APPLIED,
    ANNOTATION_DEVICES,
    ENGINE_CONTAINER,
    LABEL_REVISION,
    OPERATOR,
)
from serving_operator import timestamps
from serving_operator.body import fields, items, number, text
from serving_operator.ownership import Owner
from serving_operator.trouble import Trouble, diagnose


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A replica's pod, or whatever has a replica's name.

    Attributes:
        deletion_at: when its grace ends; None unless it terminates.
        ready_at: since when it is ready; None unless it is.
        has_ended: its phase is final; nobody but us removes it.
        is_forced: it has no grace any more, and something else holds it, such as a finalizer.
    """

    name: str
    uid: str = ""
    resource_version: str = ""
    owner: Owner = field(default_factory=Owner)
    revision: str = ""
    created_at: datetime
    deletion_at: datetime | None = None
    ready_at: datetime | None = None
    has_ended: bool = False
    is_forced: bool = False
    node: str = ""
    device_ids: str = ""
    image: str = ""
    trouble: Trouble | None = None

    @classmethod
    def of(cls, body: Mapping[str, object]) -> Self:
        """Read a pod."""
        metadata = fields(body, "metadata")
        created_at = timestamps.parse(text(metadata, "creationTimestamp"))
        assert created_at is not None, "a stored object has a creationTimestamp"
        return cls(
            name=text(metadata, "name"),
            uid=text(metadata, "uid"),
            resource_version=text(metadata, "resourceVersion"),
            owner=Owner.of(body),
            revision=text(metadata, "labels", LABEL_REVISION),
            created_at=created_at,
            deletion_at=timestamps.parse(text(metadata, "deletionTimestamp")),
            ready_at=_ready_at(body),
            has_ended=text(body, "status", "phase") in {"Failed", "Succeeded"},
            is_forced=metadata.get("deletionGracePeriodSeconds") == 0,
            node=text(body, "spec", "nodeName"),
            device_ids=_device_ids(text(metadata, "annotations", ANNOTATION_DEVICES)),
            image=_engine_image(body),
            trouble=diagnose(body),
        )

    @property
    def is_terminating(self) -> bool:
        """Whether it was deleted and is still there."""
        return self.deletion_at is not None

    @property
    def is_ready(self) -> bool:
        """Whether it takes requests."""
        return self.ready_at is not None and not self.is_terminating and not self.has_ended

    def is_available(self, min_ready: timedelta, now: datetime) -> bool:
        """Return whether it has been ready for long enough."""
        return self.is_ready and self.ready_at is not None and now >= self.ready_at + min_ready


def _ready_at(body: Mapping[str, object]) -> datetime | None:
    for condition in items(body, "status", "conditions"):
        if condition.get("type") == "Ready" and condition.get("status") == "True":
            changed_at = timestamps.parse(text(condition, "lastTransitionTime"))
            return changed_at or timestamps.parse(text(body, "metadata", "creationTimestamp"))
    return None


def _device_ids(annotation: str) -> str:
    """Return the digits after the last dash of each: `Ascend910-0,Ascend910-1` is `0,1`."""
    names = [name.strip() for name in annotation.split(",") if name.strip()]
    return ",".join(name.rpartition("-")[2] for name in names)


def _engine_image(body: Mapping[str, object]) -> str:
    containers = items(body, "spec", "containers")
    engines = [one for one in containers if one.get("name") == ENGINE_CONTAINER]
    return text(engines[0], "image") if engines else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """Any other child, or whatever has its name.

    Attributes:
        applied: hash of what we meant when we applied it last.
        is_posted: what the POST that made it said counts as another owner's beside what we apply.
        fields: what server-side apply says that we own, as FieldsV1 in JSON, which takes a tenth
            of the memory of what it stands for; None = never applied.
        settled_fields: the same as our last apply left it; None = not by this process.
        replicas: of a Deployment, what its spec says.
        status: of a Deployment.
    """

    kind: str
    name: str
    uid: str = ""
    resource_version: str = ""
    owner: Owner = field(default_factory=Owner)
    is_terminating: bool = False
    applied: str = ""
    is_posted: bool = False
    fields: str | None = None
    settled_fields: str | None = None
    replicas: int = 0
    status: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        body: Mapping[str, object],
        kind: str,
        *,
        settled_fields: str | None = None,
    ) -> Self:
        """Read a child; lists leave the kind out of their items."""
        metadata = fields(body, "metadata")
        return cls(
            kind=kind,
            name=text(metadata, "name"),
            uid=text(metadata, "uid"),
            resource_version=text(metadata, "resourceVersion"),
            owner=Owner.of(body),
            is_terminating=bool(text(metadata, "deletionTimestamp")),
            applied=text(metadata, "annotations", ANNOTATION_APPLIED),
            is_posted=any(is_from_post(entry) for entry in items(metadata, "managedFields")),
            fields=_applied_fields(metadata),
            settled_fields=settled_fields,
            replicas=number(body, "spec", "replicas"),
            status=_deployment_status(body) if kind == "Deployment" else {},
        )


def is_from_post(entry: Mapping[str, object]) -> bool:
    """Return whether an entry of managedFields is of our own writes that were no apply."""
    ours = entry.get("manager") == OPERATOR and entry.get("operation") == "Update"
    return ours and "subresource" not in entry


def _applied_fields(metadata: Mapping[str, object]) -> str | None:
    for entry in items(metadata, "managedFields"):
        if entry.get("manager") == OPERATOR and entry.get("operation") == "Apply":
            return json.dumps(fields(entry, "fieldsV1"), sort_keys=True)
    return None


def _deployment_status(body: Mapping[str, object]) -> Mapping[str, object]:
    status = fields(body, "status")
    return {
        "replicas": number(status, "replicas"),
        "readyReplicas": number(status, "readyReplicas"),
        "conditions": items(status, "conditions"),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The API server's words about rendered pods: empty where it accepts them."""

    replica: str = ""
    router: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that one decision is made from, beside the ServingDeployment itself.

    Attributes:
        pods: all that bear the labels or the names of replicas.
        routers: the routers' pods.
        children: by kind and name.
        verdict: None = the API server has not been asked about what is wanted now.
        refused: why the last try to create a replica's pod failed, by replica index.
    """

    pods: tuple[Pod, ...] = ()
    routers: tuple[Pod, ...] = ()
    children: Mapping[tuple[str, str], Child] = field(default_factory=dict)
    verdict: Verdict | None = None
    refused: Mapping[int, str] = field(default_factory=dict)
