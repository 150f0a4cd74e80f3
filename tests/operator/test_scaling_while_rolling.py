"""A scale-down in the middle of a rollout pays for nothing: what leaves anyway serves nobody."""

from __future__ import annotations

from tests.operator.cluster_model import ClusterModel, settled


def half_rolled(**rollout: int) -> ClusterModel:
    """Return six replicas, of which 3, 4 and 5 have the new revision; all serve."""
    cluster = settled(parallelism={"dataParallelSize": 6}, rollout=rollout)
    cluster.change(template={"metadata": {"annotations": {"release": "2"}}})
    for _ in range(3):
        cluster.reconcile()
        cluster.end_terminating()
        cluster.reconcile()
        cluster.make_ready()
    cluster.deleted.clear()
    return cluster


def test_scaling_down_while_rolling_keeps_the_budget() -> None:
    cluster = half_rolled(maxUnavailable=1)
    cluster.change(parallelism={"dataParallelSize": 3})
    cluster.reconcile()
    deleted = [action.pod.name for action in cluster.deleted]
    assert deleted == ["qwen-5", "qwen-4", "qwen-3", "qwen-2"]
    assert sum(pod.is_ready for pod in cluster.pods.values()) == 2


def test_scaling_down_while_rolling_says_so() -> None:
    cluster = half_rolled(maxUnavailable=1)
    cluster.change(parallelism={"dataParallelSize": 3})
    cluster.reconcile()
    assert cluster.deleted[0].reason == "scaled down to 3"
