"""The status of a ServingDeployment: what the operator writes and people read.

Apart from the wanted state, because the two have different writers and different strictness: a
status that a newer operator wrote is read by an older one, so unknown fields are ignored here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue

from serving_contract.fields import Fields

Count = Annotated[int, Field(ge=0)]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class _Reported(Fields):
    model_config = ConfigDict(extra="ignore")


class Condition(_Reported):
    """One aspect of the state, in the shape of every Kubernetes condition."""

    type: str
    """Accepted, Available, Progressing or Degraded."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    observed_generation: Count = 0
    """The metadata.generation that this was computed from."""
    last_transition_time: Time
    """When `status` last flipped, RFC 3339 in UTC."""
    reason: Annotated[str, Field(min_length=1)]
    """One CamelCase word for programs."""
    message: str = ""
    """One line for people; quotes the scheduler, the kubelet or the engine."""


class ReplicaStatus(_Reported):
    """What is known of one replica."""

    index: Count
    """Replica index, 0..dataParallelSize-1; surge replicas come after."""
    pod: str = ""
    """Name of its pod; empty while there is none."""
    node: str = ""
    """Node that the pod is bound to."""
    device_ids: Annotated[str, Field(alias="deviceIDs")] = ""
    """Ids of its devices on that node, as the device plugin wrote them on the pod."""
    image: str = ""
    """Image of the engine container."""
    revision: str = ""
    """Revision that the pod was made from."""
    ready: bool = False
    """Whether the pod is ready."""
    reason: str = ""
    """Why it is not ready, or what is wrong with it; one CamelCase word."""
    message: str = ""
    """The same in one line for people."""
    failures: Count | None = None
    """Failures in a row; only while backing off."""
    retry_time: Time | None = None
    """When the pod is made again, RFC 3339 in UTC; only while backing off."""
    failed_pod_uid: Annotated[str | None, Field(alias="failedPodUID")] = None
    """The pod that failed last, so that it is counted once; only while backing off."""


def _keyed_by(field: str) -> dict[str, JsonValue]:
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [field]}


class Status(_Reported):
    """What was observed."""

    observed_generation: Count = 0
    """The metadata.generation that this status was computed from."""
    ready: str = ""
    """readyReplicas/dataParallelSize, for the column Ready."""
    replicas: Count = 0
    """Replica pods that exist."""
    ready_replicas: Count = 0
    """Replica pods that are ready."""
    updated_replicas: Count = 0
    """Replica pods of the wanted revision."""
    unavailable_replicas: Count = 0
    """Wanted replicas that are not available."""
    device_count: Count = 0
    """dataParallelSize x tensorParallelSize."""
    selector: str = ""
    """Label selector of the replica pods, for /scale and autoscalers."""
    router_replicas: Count = 0
    """Router pods that exist."""
    ready_router_replicas: Count = 0
    """Router pods that are ready."""
    url: str = ""
    """Where clients reach the OpenAI API from inside the cluster."""
    update_revision: str = ""
    """The wanted revision; an up-to-date pod has it in its label ascend-serving.dev/revision."""
    replica_statuses: Annotated[
        tuple[ReplicaStatus, ...], Field(json_schema_extra=_keyed_by("index"))
    ] = ()
    """One entry per replica index; above 64 replicas the at most 64 worst."""
    conditions: Annotated[tuple[Condition, ...], Field(json_schema_extra=_keyed_by("type"))] = ()
    """Accepted, Available, Progressing and Degraded."""
