"""The replicas as a decision sees them: which pod stands for which index, and how it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from serving_operator import naming
from serving_operator.observed import Pod
from serving_operator.ownership import Ownership
from serving_operator.subject import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the replicas are to become.

    Attributes:
        dp: number of replicas; frozen while the ServingDeployment is paused.
        revision: that they are to have; frozen likewise.
        may_create: pods of this revision can be rendered and are accepted.
        is_paused: nothing scales and no revision moves.
    """

    dp: int
    revision: str
    may_create: bool
    is_paused: bool
    max_unavailable: int
    max_surge: int
    min_ready: timedelta
    progress_deadline: timedelta
    was_rolling: bool

    @property
    def floor(self) -> int:
        """Replicas that our own deletions must leave available."""
        return max(0, self.dp - self.max_unavailable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """The pods by replica index.

    Attributes:
        ours: pods of this ServingDeployment.
        predecessors: pods of a deleted one of the same name.
        foreign: anybody else's with a replica's name.
    """

    now: datetime
    target: Target
    ours: dict[int, Pod] = field(default_factory=dict)
    predecessors: dict[int, Pod] = field(default_factory=dict)
    foreign: dict[int, Pod] = field(default_factory=dict)

    @classmethod
    def of(cls, subject: Subject, pods: Iterable[Pod], target: Target, now: datetime) -> Replicas:
        """Sort pods by whose they are."""
        replicas = cls(now=now, target=target)
        shelves = {
            Ownership.OURS: replicas.ours,
            Ownership.PREDECESSORS: replicas.predecessors,
            Ownership.FOREIGN: replicas.foreign,
        }
        for pod in pods:
            index = naming.index_of(pod.name, subject.name)
            if index is not None:
                shelves[pod.owner.seen_from(subject.name, subject.uid)][index] = pod
        return replicas

    def is_outdated(self, pod: Pod) -> bool:
        """Return whether the pod is of another revision than the wanted one."""
        return pod.revision != self.target.revision

    def is_available(self, pod: Pod) -> bool:
        """Return whether the pod counts as serving."""
        return pod.is_available(self.target.min_ready, self.now)

    @property
    def base(self) -> dict[int, Pod]:
        """Our pods of the indexes 0..dp-1."""
        return {index: pod for index, pod in self.ours.items() if index < self.target.dp}

    @property
    def beyond(self) -> dict[int, Pod]:
        """Our pods of the indexes from dp on."""
        return {index: pod for index, pod in self.ours.items() if index >= self.target.dp}

    @property
    def is_taken(self) -> set[int]:
        """Indexes whose name somebody has, whoever it is."""
        return self.ours.keys() | self.predecessors.keys() | self.foreign.keys()

    @property
    def available(self) -> int:
        """How many pods of ours serve, surge pods included."""
        return sum(self.is_available(pod) for pod in self.ours.values())

    @property
    def outdated_base(self) -> dict[int, Pod]:
        """Base pods of another revision, also those that terminate."""
        return {index: pod for index, pod in self.base.items() if self.is_outdated(pod)}

    @property
    def is_base_available(self) -> bool:
        """Whether each of the indexes 0..dp-1 serves."""
        base = self.base
        return len(base) == self.target.dp and all(map(self.is_available, base.values()))

    @property
    def slow(self) -> list[Pod]:
        """Pods of the wanted revision that took longer than the deadline and are not ready."""
        return [pod for pod in self.unready_current if self.deadline_of(pod) <= self.now]

    @property
    def unready_current(self) -> list[Pod]:
        """Pods of the wanted revision that are not ready."""
        return [
            pod
            for pod in self.ours.values()
            if not (self.is_outdated(pod) or pod.is_ready or pod.is_terminating or pod.has_ended)
        ]

    @property
    def is_stalled(self) -> bool:
        """Whether the rollout has to stop: its first replicas do not become ready."""
        return bool(self.slow)

    def deadline_of(self, pod: Pod) -> datetime:
        """Return when a pod that is not ready counts as failed."""
        return pod.created_at + self.target.progress_deadline
