from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.operator.cluster_model import (
    OURS,
    PREDECESSORS,
    START,
    ClusterModel,
    settled,
    subject_of,
)

from serving_operator.actions import AskServer
from serving_operator.observed import Pod, Verdict
from serving_operator.ownership import Owner
from serving_operator.trouble import Reason, Trouble


def dp(count: int, tp: int = 1) -> dict[str, int]:
    return {"dataParallelSize": count, "tensorParallelSize": tp}


def annotated(value: str) -> dict[str, Any]:
    """A template that makes a new revision."""
    return {"metadata": {"annotations": {"release": value}}}


def test_new_deployment_gets_all_replicas_at_once() -> None:
    cluster = ClusterModel(parallelism=dp(3))
    cluster.reconcile()
    assert cluster.created == ["qwen-0", "qwen-1", "qwen-2"]
    assert cluster.condition("Progressing") == ("True", "Scaling")
    assert cluster.condition("Available") == ("False", "NoReadyReplica")
    assert cluster.condition("Degraded") == ("False", "AsExpected")


def test_ready_deployment_is_complete_and_tells_its_numbers() -> None:
    cluster = settled(parallelism=dp(2, 4))
    status = cluster.status
    assert cluster.condition("Available") == ("True", "ReplicasReady")
    assert cluster.condition("Progressing") == ("True", "Complete")
    assert (status.ready, status.device_count, status.unavailable_replicas) == ("2/2", 8, 0)
    assert status.url == "http://qwen.models.svc"
    assert status.update_revision == cluster.subject.revision


def test_idle_deployment_costs_nothing() -> None:
    cluster = settled(parallelism=dp(2))
    before = cluster.status_writes
    for _ in range(3):
        cluster.pass_time(minutes=5)
        assert cluster.reconcile().actions == ()
    assert cluster.status_writes == before


def test_server_is_asked_before_the_first_pod_and_once_a_revision() -> None:
    cluster = ClusterModel()
    first = cluster.decide()
    assert any(isinstance(action, AskServer) for action in first.actions)
    assert not first.touches_pods
    cluster.reconcile()
    cluster.change(router={"replicas": 3})
    cluster.verdict = Verdict()
    assert not any(isinstance(action, AskServer) for action in cluster.decide().actions)


def test_restart_does_not_ask_about_what_was_accepted() -> None:
    cluster = settled()
    cluster.verdict = None
    assert cluster.decide().actions == ()


def test_refused_template_leaves_running_replicas_alone() -> None:
    cluster = settled(parallelism=dp(2))
    old = cluster.status.update_revision
    cluster.answer = Verdict(replica="spec.containers[0].image: Required value")
    cluster.change(template=annotated("broken"))
    cluster.reconcile()
    assert cluster.deleted == []
    assert cluster.condition("Accepted") == ("False", "TemplateInvalid")
    assert "Required value" in cluster.message("Accepted")
    assert cluster.condition("Available") == ("True", "ReplicasReady")
    assert cluster.status.update_revision == old


def test_template_of_ours_is_refused_without_asking() -> None:
    cluster = ClusterModel(template={"spec": {"restartPolicy": "Never"}})
    cluster.answer = Verdict()
    cluster.reconcile()
    assert cluster.created == []
    assert cluster.message("Accepted").startswith("template.spec.restartPolicy:")


def test_routers_template_of_ours_is_named_as_such() -> None:
    cluster = ClusterModel(router={"template": {"spec": {"restartPolicy": "Never"}}})
    cluster.reconcile()
    assert cluster.message("Accepted").startswith("router.template.spec.restartPolicy:")


def test_lost_replica_comes_back_at_once() -> None:
    cluster = settled(parallelism=dp(2))
    del cluster.pods["qwen-1"]
    cluster.reconcile()
    assert cluster.created == ["qwen-1"]
    assert cluster.condition("Progressing") == ("True", "Complete")


@pytest.mark.parametrize(("size", "left"), [(1, [0]), (0, []), (2, [0, 1])])
def test_scaling_down_takes_the_highest_indexes(size: int, left: list[int]) -> None:
    cluster = settled(parallelism=dp(4))
    cluster.change(parallelism=dp(size))
    cluster.reconcile()
    cluster.end_terminating()
    cluster.reconcile()
    assert cluster.indexes() == left


def test_scaled_to_zero_is_available_and_back_again() -> None:
    cluster = settled(parallelism=dp(2))
    cluster.change(parallelism=dp(0))
    cluster.reconcile()
    cluster.end_terminating()
    cluster.reconcile()
    assert cluster.condition("Available") == ("True", "ScaledToZero")
    cluster.change(parallelism=dp(2))
    cluster.reconcile()
    assert cluster.created == ["qwen-0", "qwen-1"]


def test_rollout_replaces_one_replica_at_a_time_the_highest_first() -> None:
    cluster = settled(parallelism=dp(3))
    cluster.change(template=annotated("2"))
    order = []
    for _ in range(3):
        cluster.reconcile()
        [terminating] = [name for name, pod in cluster.pods.items() if pod.is_terminating]
        order.append(terminating)
        cluster.end_terminating()
        cluster.reconcile()
        assert not any(pod.is_terminating for pod in cluster.pods.values())
        cluster.make_ready()
    cluster.reconcile()
    assert order == ["qwen-2", "qwen-1", "qwen-0"]
    assert cluster.events() == ["RolloutStarted", "RolloutComplete"]


def test_successor_waits_until_the_old_pod_is_gone() -> None:
    cluster = settled(parallelism=dp(1))
    cluster.change(template=annotated("2"))
    cluster.reconcile()
    cluster.pass_time(seconds=30)
    cluster.reconcile()
    assert cluster.created == []
    cluster.end_terminating()
    cluster.reconcile()
    assert cluster.created == ["qwen-0"]


def test_replica_that_is_down_already_is_replaced_first_and_uses_the_budget() -> None:
    cluster = settled(parallelism=dp(3))
    cluster.put(0, ready_at=None)
    cluster.change(template=annotated("2"))
    cluster.reconcile()
    assert [action.pod.name for action in cluster.deleted] == ["qwen-0"]


def test_change_of_the_router_replaces_no_replica() -> None:
    cluster = settled(parallelism=dp(2))
    cluster.change(router={"replicas": 5, "policy": "RoundRobin"}, rollout={"minReadySeconds": 5})
    cluster.reconcile()
    assert cluster.deleted == []


def test_rollout_stops_at_the_deadline_and_leaves_the_rest_serving() -> None:
    cluster = settled(parallelism=dp(3), rollout={"progressDeadlineSeconds": 60})
    cluster.change(template=annotated("bad"))
    cluster.reconcile()
    cluster.end_terminating()
    cluster.reconcile()
    cluster.pass_time(seconds=61)
    cluster.reconcile()
    assert cluster.condition("Progressing") == ("False", "ProgressDeadlineExceeded")
    assert cluster.condition("Degraded") == ("True", "StartupTimeout")
    assert len(cluster.deleted) == 1
    assert cluster.events() == ["RolloutStarted", "RolloutStalled", "StartupTimeout"]


def test_revert_of_a_stopped_rollout_touches_only_the_replica_that_was_changed() -> None:
    cluster = settled(parallelism=dp(3), rollout={"progressDeadlineSeconds": 60})
    cluster.change(template=annotated("bad"))
    cluster.reconcile()
    cluster.end_terminating()
    cluster.reconcile()
    cluster.pass_time(seconds=61)
    cluster.reconcile()
    cluster.deleted.clear()
    cluster.change(template=None)
    cluster.reconcile()
    assert [action.pod.name for action in cluster.deleted] == ["qwen-2"]


def test_stopped_rollout_goes_on_when_its_replica_becomes_ready() -> None:
    cluster = settled(parallelism=dp(2), rollout={"progressDeadlineSeconds": 60})
    cluster.change(template=annotated("slow"))
    cluster.reconcile()
    cluster.end_terminating()
    cluster.reconcile()
    cluster.pass_time(seconds=90)
    cluster.reconcile()
    cluster.make_ready()
    cluster.reconcile()
    assert [action.pod.name for action in cluster.deleted] == ["qwen-1", "qwen-0"]


def test_surge_replica_comes_first_and_goes_last() -> None:
    cluster = settled(parallelism=dp(2), rollout={"maxSurge": 1, "maxUnavailable": 0})
    cluster.change(template=annotated("2"))
    cluster.reconcile()
    assert cluster.created == ["qwen-2"]
    assert cluster.deleted == []
    for _ in range(2):
        cluster.make_ready()
        cluster.reconcile()
        cluster.end_terminating()
        cluster.reconcile()
    assert [action.pod.name for action in cluster.deleted] == ["qwen-1", "qwen-0"]
    cluster.make_ready()
    cluster.reconcile()
    assert cluster.deleted[-1].pod.name == "qwen-2"


def test_surge_replica_that_cannot_be_scheduled_holds_the_rollout() -> None:
    cluster = settled(parallelism=dp(2), rollout={"maxSurge": 1, "maxUnavailable": 1})
    cluster.change(template=annotated("2"))
    cluster.reconcile()
    cluster.put(2, trouble=Trouble(reason=Reason.UNSCHEDULABLE, message="no device"))
    cluster.reconcile()
    assert cluster.deleted == []
    assert cluster.condition("Degraded") == ("True", "Unschedulable")


def test_replica_counts_only_after_its_minimum_time() -> None:
    cluster = settled(parallelism=dp(2), rollout={"minReadySeconds": 30})
    cluster.pass_time(seconds=30)
    cluster.change(template=annotated("2"))
    cluster.reconcile()
    cluster.end_terminating()
    cluster.reconcile()
    cluster.make_ready()
    decided = cluster.reconcile()
    assert len(cluster.deleted) == 1
    assert decided.requeue_after == timedelta(seconds=30)
    cluster.pass_time(seconds=30)
    cluster.reconcile()
    assert len(cluster.deleted) == 2


def test_pause_stops_scaling_and_rolling_but_heals() -> None:
    cluster = settled(parallelism=dp(2))
    frozen = cluster.status
    cluster.change(paused=True, parallelism=dp(4))
    del cluster.pods["qwen-0"]
    cluster.reconcile()
    assert cluster.created == ["qwen-0"]
    assert cluster.condition("Progressing") == ("False", "Paused")
    cluster.change(template=annotated("2"))
    del cluster.pods["qwen-1"]
    cluster.reconcile()
    assert cluster.created == ["qwen-0"]
    assert cluster.status.update_revision == frozen.update_revision
    assert cluster.status.device_count == frozen.device_count


def test_deployment_that_begins_paused_makes_nothing() -> None:
    cluster = ClusterModel(paused=True, parallelism=dp(2))
    cluster.reconcile()
    assert cluster.created == []


def fail(cluster: ClusterModel, index: int) -> None:
    words = "UnexpectedAdmissionError: no healthy devices present"
    cluster.put(
        index,
        has_ended=True,
        ready_at=None,
        trouble=Trouble(reason=Reason.ADMISSION_FAILED, message=words),
    )


def test_failed_pod_is_replaced_after_a_delay_that_doubles() -> None:
    cluster = settled(parallelism=dp(1))
    delays = []
    for _ in range(7):
        fail(cluster, 0)
        decided = cluster.reconcile()
        assert decided.requeue_after is not None
        delays.append(round(decided.requeue_after.total_seconds(), -1))
        cluster.pass_time(seconds=decided.requeue_after.total_seconds())
        cluster.reconcile()
        cluster.end_terminating()
        cluster.reconcile()
    assert delays == [10, 20, 40, 80, 160, 300, 300]
    assert cluster.condition("Degraded") == ("False", "AsExpected")


def test_failure_counts_once_however_often_it_is_seen() -> None:
    cluster = settled(parallelism=dp(1))
    fail(cluster, 0)
    for _ in range(5):
        cluster.reconcile()
        cluster.pass_time(seconds=1)
    assert cluster.status.replica_statuses[0].failures == 1
    assert cluster.condition("Degraded") == ("True", "AdmissionFailed")


def test_backoff_ends_when_the_replica_is_ready() -> None:
    cluster = settled(parallelism=dp(1))
    fail(cluster, 0)
    cluster.reconcile()
    cluster.pass_time(seconds=20)
    cluster.reconcile()
    cluster.end_terminating()
    cluster.reconcile()
    assert cluster.status.replica_statuses[0].failures == 1
    cluster.make_ready()
    cluster.reconcile()
    assert cluster.status.replica_statuses[0].failures is None


def test_exceeded_quota_degrades_and_is_tried_again() -> None:
    cluster = settled(parallelism=dp(1))
    cluster.refusal = "exceeded quota: pods=1"
    cluster.change(parallelism=dp(2))
    decided = cluster.reconcile()
    assert cluster.condition("Degraded") == ("True", "AdmissionFailed")
    assert "exceeded quota" in cluster.message("Degraded")
    assert decided.requeue_after is not None
    cluster.reconcile()
    assert cluster.condition("Degraded") == ("True", "AdmissionFailed")
    cluster.refusal = ""
    cluster.pass_time(seconds=15)
    cluster.reconcile()
    assert cluster.created == ["qwen-1"]


def test_pod_of_a_lost_node_is_waited_for_by_default() -> None:
    cluster = settled(parallelism=dp(2))
    cluster.delete("qwen-0")
    cluster.pass_time(hours=2)
    cluster.reconcile()
    assert cluster.deleted == []
    assert cluster.condition("Degraded") == ("True", "NodeLost")


def test_pod_of_a_lost_node_is_deleted_by_force_where_that_is_asked() -> None:
    cluster = settled(parallelism=dp(2), nodeLost={"policy": "ForceDelete", "afterSeconds": 60})
    cluster.delete("qwen-0")
    cluster.pass_time(seconds=610 + 59)
    cluster.reconcile()
    assert cluster.deleted == []
    cluster.pass_time(seconds=1)
    cluster.reconcile()
    [forced] = cluster.deleted
    assert forced.by_force
    assert cluster.created == ["qwen-0"]


def test_foreign_pod_in_the_way_is_named_and_left_alone() -> None:
    cluster = ClusterModel(parallelism=dp(2))
    cluster.put(0, owner=Owner())
    decided = cluster.reconcile()
    assert cluster.condition("Accepted") == ("False", "NameConflict")
    assert "Pod qwen-0" in cluster.message("Accepted")
    assert cluster.created == ["qwen-1"]
    assert cluster.deleted == []
    assert decided.requeue_after is not None


def test_pods_of_a_deleted_deployment_of_the_same_name_are_waited_for() -> None:
    cluster = ClusterModel(parallelism=dp(2))
    cluster.put(1, owner=PREDECESSORS)
    cluster.reconcile()
    assert "waiting for Pod qwen-1 of the deleted ServingDeployment" in cluster.message(
        "Progressing"
    )
    assert cluster.created == ["qwen-0"]
    del cluster.pods["qwen-1"]
    cluster.reconcile()
    assert cluster.created == ["qwen-0", "qwen-1"]


def test_worst_replica_speaks_and_each_reason_is_told_once() -> None:
    cluster = settled(parallelism=dp(3))
    cluster.put(0, ready_at=None, trouble=Trouble(reason=Reason.UNSCHEDULABLE, message="full"))
    cluster.put(2, ready_at=None, trouble=Trouble(reason=Reason.CRASH_LOOP, message="exit 1"))
    cluster.reconcile()
    cluster.reconcile()
    assert cluster.condition("Degraded") == ("True", "CrashLoop")
    assert cluster.message("Degraded") == "replica 2: exit 1 (and 1 more)"
    assert cluster.events() == ["CrashLoop"]


def test_no_ready_router_makes_it_unavailable() -> None:
    cluster = settled()
    cluster.route(ready=0)
    cluster.reconcile()
    assert cluster.condition("Available") == ("False", "RouterUnavailable")


def sick_router(**fields: Any) -> Pod:
    trouble = Trouble(reason=Reason.IMAGE_PULL_FAILED, message="ErrImagePull: no such image")
    return Pod(name="qwen-router-a", created_at=START, **{"trouble": trouble, **fields})


def test_router_in_trouble_is_told_beside_the_one_that_serves() -> None:
    cluster = settled()
    cluster.routers = [sick_router()]
    cluster.reconcile()
    assert cluster.condition("Available") == ("True", "ReplicasReady")
    assert cluster.condition("Degraded") == ("True", "ImagePullFailed")
    assert cluster.message("Degraded") == "router qwen-router-a: ErrImagePull: no such image"
    cluster.routers = []
    cluster.reconcile()
    assert cluster.condition("Degraded") == ("False", "AsExpected")


def test_without_a_ready_router_its_own_words_are_quoted() -> None:
    cluster = settled()
    cluster.route(ready=0)
    cluster.routers = [sick_router()]
    cluster.reconcile()
    assert cluster.condition("Available") == ("False", "RouterUnavailable")
    expected = "no router is ready: qwen-router-a: ErrImagePull: no such image"
    assert cluster.message("Available") == expected


def test_router_that_goes_is_in_no_trouble() -> None:
    cluster = settled()
    cluster.routers = [sick_router(deletion_at=START), sick_router(has_ended=True)]
    cluster.reconcile()
    assert cluster.condition("Degraded") == ("False", "AsExpected")


def test_router_that_is_not_ready_yet_is_in_no_trouble() -> None:
    cluster = settled()
    unready = Trouble(reason=Reason.REPLICA_NOT_READY, message="probe fails", is_unready=True)
    cluster.routers = [sick_router(trouble=unready)]
    cluster.reconcile()
    assert cluster.condition("Degraded") == ("False", "AsExpected")


def test_replica_in_trouble_speaks_before_a_router() -> None:
    cluster = settled()
    cluster.put(0, ready_at=None, trouble=Trouble(reason=Reason.UNSCHEDULABLE, message="full"))
    cluster.routers = [sick_router()]
    cluster.reconcile()
    assert cluster.message("Degraded") == "replica 0: full"


def test_times_of_conditions_move_only_when_a_status_flips() -> None:
    cluster = settled()
    before = {one.type: one.last_transition_time for one in cluster.status.conditions}
    cluster.pass_time(hours=1)
    cluster.change(router={"policy": "RoundRobin"})
    cluster.reconcile()
    after = {one.type: one.last_transition_time for one in cluster.status.conditions}
    assert after == before
    assert {one.observed_generation for one in cluster.status.conditions} == {2}


def test_of_many_replicas_only_the_64_worst_are_listed() -> None:
    cluster = settled(parallelism=dp(100))
    cluster.put(99, ready_at=None, trouble=Trouble(reason=Reason.CRASH_LOOP, message="exit 1"))
    cluster.reconcile()
    listed = [replica.index for replica in cluster.status.replica_statuses]
    assert len(listed) == 64
    assert 99 in listed


def test_operator_upgrade_touches_no_replica() -> None:
    cluster = settled(parallelism=dp(2))
    cluster.put(0, image="npu:0")
    assert not cluster.decide().touches_pods


def test_owner_is_told_by_the_uid_alone() -> None:
    subject = subject_of({})
    assert OURS.seen_from(subject.name, subject.uid).name == "OURS"
    assert PREDECESSORS.seen_from(subject.name, subject.uid).name == "PREDECESSORS"
    assert Owner().seen_from(subject.name, subject.uid).name == "FOREIGN"


def test_surge_replica_stays_through_a_pause_until_everybody_serves() -> None:
    cluster = settled(parallelism=dp(2), rollout={"maxSurge": 1, "maxUnavailable": 0})
    cluster.change(template=annotated("2"))
    cluster.reconcile()
    cluster.make_ready()
    cluster.reconcile()
    cluster.end_terminating()
    cluster.reconcile()
    cluster.make_ready()
    cluster.reconcile()
    cluster.end_terminating()
    cluster.reconcile()
    cluster.change(paused=True)
    cluster.reconcile()
    cluster.change(paused=False)
    cluster.reconcile()
    assert 2 in cluster.indexes()
    assert not cluster.pods["qwen-2"].is_terminating


def test_refused_template_does_not_hide_that_replicas_are_missing() -> None:
    cluster = settled(parallelism=dp(2))
    cluster.answer = Verdict(replica="no")
    cluster.change(template=annotated("bad"), parallelism=dp(5))
    cluster.reconcile()
    assert cluster.condition("Progressing") == ("True", "Scaling")


def test_failed_pod_under_a_refused_template_is_not_counted_again_and_again() -> None:
    cluster = settled(parallelism=dp(1))
    cluster.answer = Verdict(replica="no")
    cluster.change(template=annotated("bad"))
    fail(cluster, 0)
    cluster.reconcile()
    before = cluster.status_writes
    for _ in range(3):
        cluster.pass_time(seconds=15)
        cluster.reconcile()
    assert cluster.status_writes == before


def test_scaled_down_replica_of_a_lost_node_is_told() -> None:
    cluster = settled(parallelism=dp(4))
    cluster.change(parallelism=dp(2))
    cluster.reconcile()
    del cluster.pods["qwen-2"]
    cluster.pass_time(hours=1)
    cluster.reconcile()
    assert cluster.condition("Degraded") == ("True", "NodeLost")


def test_deployment_that_was_paused_before_its_first_replica_is_not_available() -> None:
    cluster = ClusterModel(paused=True, parallelism=dp(2))
    cluster.reconcile()
    assert cluster.condition("Available") == ("False", "NoReadyReplica")


def test_pod_that_was_forced_already_is_not_forced_again() -> None:
    cluster = settled(nodeLost={"policy": "ForceDelete", "afterSeconds": 1})
    cluster.delete("qwen-0")
    cluster.put(0, is_forced=True)
    cluster.pass_time(hours=1)
    assert not cluster.decide().touches_pods


def test_second_revision_during_a_rollout_is_told() -> None:
    cluster = settled(parallelism=dp(3))
    for release in ("2", "3"):
        cluster.change(template=annotated(release))
        cluster.reconcile()
    assert cluster.events() == ["RolloutStarted", "RolloutStarted"]
