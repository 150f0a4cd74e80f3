"""From any state that users, kubelets and time can make, plans converge and keep the budget."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.operator.cluster_model import NAME, ClusterModel

from serving_operator import naming
from serving_operator.budget import of_rollout
from serving_operator.ownership import Owner
from serving_operator.trouble import Reason, Trouble

INDEXES = st.integers(0, 5)
BUDGETS = st.sampled_from(
    [
        {"maxUnavailable": 1, "maxSurge": 0},
        {"maxUnavailable": 2, "maxSurge": 0},
        {"maxUnavailable": 0, "maxSurge": 1},
        {"maxUnavailable": 1, "maxSurge": 2},
        {"maxUnavailable": "50%", "maxSurge": "25%"},
    ]
)


class WatchedCluster(ClusterModel):
    """Checks each deletion at the moment at which it is made."""

    def delete_checked(self, name: str) -> None:
        pod = self.pods[name]
        index = naming.index_of(name, NAME)
        assert index is not None
        spec = self.subject.spec
        size = spec.parallelism.data_parallel_size
        surge = of_rollout(spec.rollout, size).max_surge
        is_scaled_away = index >= size + (surge if self.is_rolling else 0)
        if pod.is_ready and not is_scaled_away and not spec.paused:
            left = sum(one.is_ready for one in self.pods.values()) - 1
            allowed = of_rollout(spec.rollout, size).max_unavailable
            assert left >= size - allowed, f"{name} was taken though only {left} others serve"
        assert not spec.paused or pod.has_ended, "a pause takes nothing that runs"

    @property
    def is_rolling(self) -> bool:
        revision = self.subject.revision
        return any(pod.revision != revision for pod in self.pods.values())

    def _act(self, action: object, refused: dict[int, str]) -> None:
        pod = getattr(action, "pod", None)
        if pod is not None and not getattr(action, "by_force", False):
            self.delete_checked(pod.name)
        super()._act(action, refused)


class PlansConverge(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cluster = WatchedCluster()

    @initialize(
        size=st.integers(0, 5), rollout=BUDGETS, lost=st.sampled_from(["Wait", "ForceDelete"])
    )
    def begin(self, size: int, rollout: dict[str, Any], lost: str) -> None:
        rollout = {**rollout, "progressDeadlineSeconds": 600, "drainTimeoutSeconds": 20}
        self.cluster = WatchedCluster(
            parallelism={"dataParallelSize": size},
            rollout=rollout,
            nodeLost={"policy": lost, "afterSeconds": 60},
        )

    @rule()
    def reconcile(self) -> None:
        self.cluster.reconcile()

    @rule(index=INDEXES)
    def becomes_ready(self, index: int) -> None:
        self.cluster.make_ready(index)

    @rule(index=INDEXES)
    def becomes_unready(self, index: int) -> None:
        if pod := self.pod(index):
            self.cluster.put(index, ready_at=None, owner=pod.owner)

    @rule(index=INDEXES)
    def fails(self, index: int) -> None:
        if self.pod(index):
            words = Trouble(reason=Reason.ADMISSION_FAILED, message="refused")
            self.cluster.put(index, ready_at=None, has_ended=True, trouble=words)

    @rule(index=INDEXES)
    def is_deleted_by_a_user(self, index: int) -> None:
        if pod := self.pod(index):
            self.cluster.delete(pod.name)

    @rule(index=INDEXES)
    def vanishes(self, index: int) -> None:
        if pod := self.pod(index):
            del self.cluster.pods[pod.name]

    @rule()
    def terminating_pods_end(self) -> None:
        self.cluster.end_terminating()

    @rule(seconds=st.sampled_from([1, 15, 90, 700]))
    def time_passes(self, seconds: int) -> None:
        self.cluster.pass_time(seconds=seconds)

    @rule(release=st.sampled_from(["1", "2", "3"]))
    def spec_changes(self, release: str) -> None:
        self.cluster.change(template={"metadata": {"annotations": {"release": release}}})

    @rule(size=st.integers(0, 5))
    def scales(self, size: int) -> None:
        self.cluster.change(parallelism={"dataParallelSize": size})

    @rule(paused=st.booleans())
    def pauses(self, paused: bool) -> None:
        self.cluster.change(paused=paused)

    def pod(self, index: int) -> Any:
        return self.cluster.pods.get(naming.replica_pod(NAME, index))

    @invariant()
    def nobody_else_is_touched(self) -> None:
        assert all(pod.owner != Owner() for pod in self.cluster.pods.values())

    def teardown(self) -> None:
        """Leave the cluster in peace: it must come to rest as the spec says."""
        cluster = self.cluster
        cluster.change(paused=False)
        for _ in range(14):
            cluster.reconcile()
            cluster.end_terminating()
            cluster.reconcile()
            cluster.make_ready()
            cluster.pass_time(seconds=320)
        cluster.reconcile()
        size, revision = cluster.subject.dp, cluster.subject.revision
        assert cluster.indexes() == list(range(size))
        assert all(pod.is_ready and pod.revision == revision for pod in cluster.pods.values())
        assert cluster.condition("Progressing") == ("True", "Complete")
        assert cluster.condition("Degraded") == ("False", "AsExpected")
        assert cluster.reconcile().actions == ()


PlansConverge.TestCase.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
TestPlansConverge = PlansConverge.TestCase
