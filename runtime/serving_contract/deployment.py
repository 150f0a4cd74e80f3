"""The ServingDeployment as frozen models: api group `ascend-serving.dev/v1alpha1`.

One definition for `serve -f`, for `plan` and for the operator. Field docstrings are the
descriptions that users read. What is refused here is what the API server is to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from serving_contract.errors import InvalidDeployment
from serving_contract.fields import (
    Annotations,
    Arguments,
    Count,
    Fields,
    Fraction,
    HeaderName,
    Image,
    Integer,
    IntOrPercent,
    ModelUri,
    PodTemplate,
    PositiveInt,
    ResourceName,
    SecretName,
    ServedName,
    check_name,
)
from serving_contract.kubernetes import API_VERSION, DEFAULT_RESOURCE, KIND
from serving_contract.rules import Rule, checked_by
from serving_contract.topology import MAX_DATA_PARALLEL_SIZE, MAX_TENSOR_PARALLEL_SIZE

MAX_ROUTER_REPLICAS: Final = 512

_VNPU: Final = r"huawei\.com/(?:npu-core|.*-[0-9]+c.*)"
_SECRET_IS_FOR_THE_HUB: Final = Rule(
    cel="!has(self.secretName) || self.uri.startsWith('hf://')",
    message="secretName is for a uri that begins with hf://",
    field="secretName",
    reason="FieldValueForbidden",
)
_CUSTOM_HAS_AN_IMAGE: Final = Rule(
    cel="self.kind != 'Custom' || has(self.image)",
    message="image is required with kind Custom",
    field="image",
    reason="FieldValueRequired",
)
_ROLLOUT_CAN_MOVE: Final = Rule(
    cel="!(string(self.maxUnavailable) in ['0', '0%'] && string(self.maxSurge) in ['0', '0%'])",
    message="maxUnavailable and maxSurge must not both be 0",
    field="maxUnavailable",
)
_SLICE_STANDS_ALONE: Final = Rule(
    cel=(
        "self.parallelism.tensorParallelSize == 1"
        f" || !self.devices.resourceName.matches(r'^{_VNPU}$')"
    ),
    message=(
        "parallelism.tensorParallelSize must be 1 with a vNPU in devices.resourceName,"
        " such as huawei.com/Ascend910-2c or huawei.com/npu-core"
    ),
    field="parallelism.tensorParallelSize",
)


class EngineKind(StrEnum):
    """Which engine a replica runs."""

    ASCEND_SERVING = "AscendServing"
    VLLM = "VLLM"
    PYPTO = "PyPTO"
    CUSTOM = "Custom"


class Policy(StrEnum):
    """How the router chooses among replicas."""

    LEAST_PENDING_TOKENS = "LeastPendingTokens"
    LEAST_REQUESTS = "LeastRequests"
    ROUND_ROBIN = "RoundRobin"


class Model(Fields):
    """The model that is served."""

    model_config = checked_by(_SECRET_IS_FOR_THE_HUB)

    uri: ModelUri
    """Where the weights are: `/abs/path` inside the engine container, where nothing is mounted for
    it; `pvc://CLAIM[/sub/path]`, a PersistentVolumeClaim of the same namespace, mounted read-only;
    or `hf://ORG/NAME[@REVISION]`, downloaded by every replica when it starts."""
    served_name: ServedName | None = None
    """Name in the OpenAI API; `metadata.name` if absent."""
    secret_name: SecretName | None = None
    """Secret whose key `token` becomes HF_TOKEN; for `hf://` only."""

    @model_validator(mode="after")
    def _secret_is_for_the_hub(self) -> Self:
        if self.secret_name is not None and not self.uri.startswith("hf://"):
            raise ValueError(_SECRET_IS_FOR_THE_HUB.message)
        return self


class Parallelism(Fields):
    """How devices are split."""

    data_parallel_size: Annotated[Integer, Field(ge=0, le=MAX_DATA_PARALLEL_SIZE)] = 1
    """Number of replicas, each a whole copy of the model; 0 is scaled to zero. This is what
    `kubectl scale`, HorizontalPodAutoscalers and KEDA change."""
    tensor_parallel_size: Annotated[Integer, Field(ge=1, le=MAX_TENSOR_PARALLEL_SIZE)] = 1
    """Number of devices over which one replica is split; all of them on one node."""


class Devices(Fields):
    """What a replica runs on."""

    resource_name: ResourceName = DEFAULT_RESOURCE
    """Extended resource that each replica asks for, tensorParallelSize of it, such as
    `huawei.com/Ascend910` or `nvidia.com/gpu`; `cpu` asks for no device and runs the CPU engine."""


class Engine(Fields):
    """The engine and its limits."""

    model_config = checked_by(_CUSTOM_HAS_AN_IMAGE)

    kind: EngineKind = EngineKind.ASCEND_SERVING
    """The engine: AscendServing is this project's own, VLLM runs vllm-ascend, PyPTO runs
    pypto-serving, Custom runs the image's entrypoint, which must serve the OpenAI API and
    `GET /health` on port 8000."""
    image: Image | None = None
    """Image of the engine. If absent, the one that the operator was started with when the pod is
    made: an upgrade of the operator replaces no running replica. Required for Custom."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type of weights and cache; auto takes the model's own."""
    max_model_len: PositiveInt | None = None
    """Longest sequence in tokens; the model's own limit if absent."""
    max_num_seqs: PositiveInt = 256
    """Most sequences that are computed in one step; further requests wait."""
    max_num_batched_tokens: PositiveInt = 8192
    """Most tokens that are computed in one step; longer prompts are computed in pieces."""
    device_memory_fraction: Fraction = "0.9"
    """Part of a device's memory that the engine may use, as a decimal string."""
    prefix_caching: Annotated[bool, Field(strict=True)] = True
    """Whether requests with the same beginning share its cache."""
    args: Arguments = ()
    """Appended to the engine's command line, after what the operator writes there."""

    @model_validator(mode="after")
    def _custom_has_an_image(self) -> Self:
        if self.kind is EngineKind.CUSTOM and self.image is None:
            raise ValueError(_CUSTOM_HAS_AN_IMAGE.message)
        return self


class SessionAffinity(Fields):
    """Sends the requests of a session to the replica that served it last."""

    header: HeaderName
    """Request header that names the session."""
    ttl_seconds: PositiveInt = 600
    """How long a session without requests is remembered."""


class Service(Fields):
    """The Service that clients use."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Type of the Service: inside the cluster only, a port on every node, or a load balancer."""
    port: Annotated[Integer, Field(ge=1, le=65_535)] = 80
    """Port of the Service, for HTTP or, with tlsSecretName, HTTPS."""
    annotations: Annotations = Field(default_factory=dict)
    """Annotations of the Service, such as those that a load balancer reads."""


class Router(Fields):
    """The router in front of the replicas."""

    replicas: Annotated[Count, Field(le=MAX_ROUTER_REPLICAS)] | None = None
    """Number of router pods. If absent, 2 at creation and then whatever an autoscaler or
    `kubectl scale` makes of the router's Deployment."""
    image: Image | None = None
    """Image of the router; if absent, the one that the operator was started with."""
    policy: Policy = Policy.LEAST_PENDING_TOKENS
    """How the router chooses a replica: the fewest pending tokens, the fewest requests, or each in
    turn."""
    max_pending_tokens_per_replica: PositiveInt = 65_536
    """Requests are refused with 429 and Retry-After when every routable replica has more pending
    tokens than this and requests are waiting. An idle replica takes any prompt."""
    session_affinity: SessionAffinity | None = None
    """Sends the requests of a session to the replica that served it last."""
    api_keys_secret_name: SecretName | None = None
    """Secret of which every value is a valid bearer token; its key names the client. If absent,
    anybody may ask."""
    tls_secret_name: SecretName | None = None
    """Secret of type kubernetes.io/tls with which the router serves HTTPS; if absent, HTTP."""
    service: Service = Field(default_factory=Service)
    """The Service that clients use."""
    template: PodTemplate | None = None
    """PodTemplateSpec laid over the router pod by the same rules as spec.template."""


class Rollout(Fields):
    """How a change reaches the replicas."""

    model_config = checked_by(_ROLLOUT_CAN_MOVE)

    max_unavailable: IntOrPercent = 1
    """How many replicas a rollout may take down at once: a number, or a percentage of
    dataParallelSize, rounded down. At least 1 when maxSurge comes to 0."""
    max_surge: IntOrPercent = 0
    """How many replicas beyond dataParallelSize a rollout may make: a number, or a percentage of
    dataParallelSize, rounded up. 0 suits a pool of devices that is full."""
    min_ready_seconds: Count = 0
    """How long a replica must be ready to count as available."""
    progress_deadline_seconds: PositiveInt = 1800
    """How long a new replica may take to become ready, image pull and weights included; then the
    rollout stops and the old replicas go on serving."""
    drain_timeout_seconds: Count = 600
    """How long a replica or router that is being deleted may finish its streams; holds for pods
    that are made after a change."""

    @model_validator(mode="after")
    def _can_move(self) -> Self:
        if {str(self.max_unavailable), str(self.max_surge)} <= {"0", "0%"}:
            raise ValueError(_ROLLOUT_CAN_MOVE.message)
        return self


class NodeLost(Fields):
    """What to do with a pod whose node is gone."""

    policy: Literal["Wait", "ForceDelete"] = "Wait"
    """Wait until the node is back, or ForceDelete the pod so that its replica is made anew
    elsewhere, although it may still be running there."""
    after_seconds: Count = 60
    """How long past its deletionTimestamp, which includes the grace, a pod counts as lost."""


class Spec(Fields):
    """What is wanted; only `model.uri` is required."""

    model_config = checked_by(_SLICE_STANDS_ALONE)

    model: Model
    """The model that is served."""
    parallelism: Parallelism = Field(default_factory=Parallelism)
    """How devices are split."""
    devices: Devices = Field(default_factory=Devices)
    """What a replica runs on."""
    engine: Engine = Field(default_factory=Engine)
    """The engine and its limits."""
    template: PodTemplate | None = None
    """PodTemplateSpec laid over the replica pod: everything that a pod can say beyond these fields,
    such as nodeSelector, tolerations, schedulerName, cpu and memory, hostPath driver mounts. Maps
    merge by key; containers, initContainers and ports merge by name, volumeMounts by mountPath;
    probes, lifecycle, affinity and each element of env and volumes replace; other lists replace;
    null deletes a key. The engine's container is called `engine`, its port `http`."""
    router: Router = Field(default_factory=Router)
    """The router in front of the replicas."""
    rollout: Rollout = Field(default_factory=Rollout)
    """How a change reaches the replicas, which are replaced one after the other."""
    node_lost: NodeLost = Field(default_factory=NodeLost)
    """What to do with a pod whose node is gone."""
    paused: Annotated[bool, Field(strict=True)] = False
    """While true nothing is scaled and no new revision is rolled out; lost replicas are healed."""

    @model_validator(mode="after")
    def _slice_stands_alone(self) -> Self:
        if self.parallelism.tensor_parallel_size > 1 and is_vnpu(self.devices.resource_name):
            raise ValueError(_SLICE_STANDS_ALONE.message)
        return self


class Metadata(BaseModel):
    """Object metadata, as far as it is read here; the API server knows the rest."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Annotated[str, AfterValidator(check_name)]
    namespace: Annotated[str, Field(max_length=63)] = "default"


class ServingDeployment(BaseModel):
    """A model served by dataParallelSize x tensorParallelSize devices behind an OpenAI router."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    api_version: Annotated[Literal["ascend-serving.dev/v1alpha1"], Field(alias="apiVersion")]
    kind: Literal["ServingDeployment"]
    metadata: Metadata
    spec: Spec
    status: dict[str, JsonValue] | None = None

    @property
    def served_name(self) -> str:
        """Name in the OpenAI API."""
        return self.spec.model.served_name or self.metadata.name


def is_vnpu(resource_name: str) -> bool:
    """Return whether a resource is a slice of an NPU, such as `huawei.com/Ascend910-2c`."""
    return re.fullmatch(_VNPU, resource_name) is not None


def read_deployment_object(body: Mapping[str, object]) -> ServingDeployment:
    """Read an object as the API server holds it, also one stored under another version's CRD.

    Fields of a newer version are ignored, those of an older one get their defaults.

    Raises:
        InvalidDeployment: a field that is wrong; one line.
    """
    try:
        return ServingDeployment.model_validate(dict(body), extra="ignore")
    except ValidationError as error:
        raise InvalidDeployment(_first_complaint(error)) from error


def parse_deployment(text: str) -> ServingDeployment:
    """Read one ServingDeployment from YAML or JSON.

    Raises:
        InvalidDeployment: not YAML, not exactly one object, or a field that is wrong; one line.
    """
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise InvalidDeployment(f"not YAML: {' '.join(str(error).split())}") from error
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise InvalidDeployment(f"holds {len(documents)} objects; one {KIND} is expected")
    if documents[0].get("kind") != KIND or documents[0].get("apiVersion") != API_VERSION:
        found = f"{documents[0].get('apiVersion')} {documents[0].get('kind')}"
        raise InvalidDeployment(f"holds {found}; {API_VERSION} {KIND} is expected")
    try:
        return ServingDeployment.model_validate(documents[0])
    except ValidationError as error:
        raise InvalidDeployment(_first_complaint(error)) from error


def _first_complaint(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"] if part not in {"int", "str"})
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown field"
    return f"{path}: {message}"
