"""A cluster in a few lines: it takes a plan's actions and plays kubelet, user and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from serving_contract.kubernetes import ANNOTATION_APPLIED, LABEL_REVISION
from serving_contract.status import Status
from serving_operator import naming
from serving_operator.actions import (
    ApplyChild,
    AskServer,
    CreateChild,
    CreatePod,
    DeleteChild,
    DeletePod,
    Happening,
)
from serving_operator.body import at, fields, text
from serving_operator.observed import Child, Observed, Pod, Verdict
from serving_operator.ownership import Owner
from serving_operator.plan import Plan, plan
from serving_operator.settings import Defaults, Images
from serving_operator.subject import Subject

DEFAULTS = Defaults(images=Images(engine="npu:1", engine_cpu="cpu:1", router="router:1"))
START = datetime(2026, 1, 1, tzinfo=UTC)
NAME, NAMESPACE, UID = "qwen", "models", "uid-of-qwen"
OURS = Owner(group="ascend-serving.dev", kind="ServingDeployment", name=NAME, uid=UID)
PREDECESSORS = replace(OURS, uid="uid-of-an-earlier-qwen")


def subject_of(
    spec: Mapping[str, Any], status: Status | None = None, generation: int = 1
) -> Subject:
    """Return a ServingDeployment with this spec."""
    body = {
        "apiVersion": "ascend-serving.dev/v1alpha1",
        "kind": "ServingDeployment",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "uid": UID,
            "generation": generation,
            "resourceVersion": "1",
        },
        "spec": {"model": {"uri": "/m"}, **spec},
        "status": (status or Status()).model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    return Subject.of(body)


class ClusterModel:
    """One ServingDeployment in a cluster.

    Attributes:
        deleted: pods that plans have deleted, with the number of ready ones that were left.
        refusal: if set, why no pod can be created.
    """

    def __init__(self, **spec: Any) -> None:
        self.spec: dict[str, Any] = spec
        self.status = Status()
        self.generation = 1
        self.now = START
        self.pods: dict[str, Pod] = {}
        self.routers: list[Pod] = []
        self.children: dict[tuple[str, str], Child] = {}
        self.verdict: Verdict | None = None
        self.answer = Verdict()
        self.refusal = ""
        self.happened: list[Happening] = []
        self.deleted: list[DeletePod] = []
        self.created: list[str] = []
        self.status_writes = 0
        self._uids = 0

    def change(self, **spec: Any) -> None:
        """Change the spec as a user does."""
        self.spec |= spec
        self.generation += 1
        self.verdict = None

    @property
    def subject(self) -> Subject:
        return subject_of(self.spec, self.status, self.generation)

    def decide(self, refused: Mapping[int, str] | None = None) -> Plan:
        observed = Observed(
            pods=tuple(self.pods.values()),
            routers=tuple(self.routers),
            children=dict(self.children),
            verdict=self.verdict,
            refused=refused or {},
        )
        return plan(self.subject, observed, self.now, DEFAULTS)

    def reconcile(self) -> Plan:
        """Plan and act until nothing is left to do, then write the status."""
        refused: dict[int, str] = {}
        for _ in range(50):
            decided = self.decide(refused)
            actions = [
                one
                for one in decided.actions
                if not (isinstance(one, CreatePod) and one.index in refused)
            ]
            if not actions:
                self._write(decided)
                return decided
            for action in actions:
                self._act(action, refused)
        raise AssertionError("a reconcile does not come to an end")

    def _write(self, decided: Plan) -> None:
        assert decided.status is not None
        if decided.status != self.status:
            self.status_writes += 1
            self.status = decided.status
            self.happened += decided.happenings

    def _act(self, action: object, refused: dict[int, str]) -> None:
        match action:
            case AskServer():
                self.verdict = self.answer
            case CreatePod(index=index, body=body):
                if self.refusal:
                    refused[index] = self.refusal
                else:
                    self._create(body)
            case DeletePod(pod=pod, by_force=by_force):
                assert self.pods[pod.name].uid == pod.uid
                self.deleted.append(action)
                self.delete(pod.name)
                if by_force:
                    del self.pods[pod.name]
            case CreateChild(body=body):
                key = text(body, "kind"), text(body, "metadata", "name")
                assert key not in self.children
                self.children[key] = Child(kind=key[0], name=key[1], uid="c", owner=OURS)
            case ApplyChild(body=body):
                key = text(body, "kind"), text(body, "metadata", "name")
                applied = text(body, "metadata", "annotations", ANNOTATION_APPLIED)
                owned = '{"f:all": {}}'
                self.children[key] = replace(
                    self.children[key], applied=applied, fields=owned, settled_fields=owned
                )
            case DeleteChild(child=child):
                del self.children[child.kind, child.name]

    def _create(self, body: Mapping[str, object]) -> None:
        name = text(body, "metadata", "name")
        assert name not in self.pods, f"a second pod {name}"
        self._uids += 1
        image = at(body, "spec", "containers")
        assert isinstance(image, list)
        self.created.append(name)
        self.pods[name] = Pod(
            name=name,
            uid=f"pod-{self._uids}",
            owner=OURS,
            revision=str(fields(body, "metadata", "labels")[LABEL_REVISION]),
            created_at=self.now,
            image=str(image[0]["image"]),
        )

    # What others do.

    def put(self, index: int, **changes: Any) -> None:
        """Change what is seen of a replica's pod."""
        name = naming.replica_pod(NAME, index)
        pod = self.pods.get(name) or Pod(name=name, uid=f"put-{index}", created_at=self.now)
        self.pods[name] = replace(pod, **changes)

    def make_ready(self, *indexes: int) -> None:
        for index in indexes or tuple(range(600)):
            name = naming.replica_pod(NAME, index)
            pod = self.pods.get(name)
            if pod and not pod.is_terminating and not pod.has_ended and pod.ready_at is None:
                self.pods[name] = replace(pod, ready_at=self.now, trouble=None)

    def delete(self, name: str) -> None:
        """Delete as the API server does: it stays until its grace is over."""
        pod = self.pods[name]
        if pod.deletion_at is None:
            grace = self.subject.spec.rollout.drain_timeout_seconds + 10
            self.pods[name] = replace(pod, deletion_at=self.now + timedelta(seconds=grace))

    def end_terminating(self) -> None:
        """Remove what terminates, as the kubelet does in the end."""
        self.pods = {name: pod for name, pod in self.pods.items() if not pod.is_terminating}

    def route(self, ready: int = 2) -> None:
        """Make the routers ready."""
        key = ("Deployment", naming.router(NAME))
        status = {"replicas": 2, "readyReplicas": ready, "conditions": []}
        self.children[key] = replace(self.children[key], status=status, replicas=2)

    def pass_time(self, **duration: float) -> None:
        self.now += timedelta(**duration)

    # What is seen.

    def indexes(self) -> list[int]:
        found = (naming.index_of(name, NAME) for name in self.pods)
        return sorted(index for index in found if index is not None)

    def condition(self, kind: str) -> tuple[str, str]:
        """Return status and reason."""
        [found] = [one for one in self.status.conditions if one.type == kind]
        return found.status, found.reason

    def message(self, kind: str) -> str:
        [found] = [one for one in self.status.conditions if one.type == kind]
        return found.message

    def events(self) -> list[str]:
        return [happening.reason for happening in self.happened]


def settled(**spec: Any) -> ClusterModel:
    """Return a cluster whose replicas and routers are all ready."""
    cluster = ClusterModel(**spec)
    cluster.reconcile()
    cluster.make_ready()
    cluster.route()
    cluster.reconcile()
    cluster.happened.clear()
    cluster.created.clear()
    return cluster
