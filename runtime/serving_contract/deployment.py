"""The ServingDeployment as frozen models: api group `ascend-serving.dev/v1alpha1`.

One definition for `serve -f`, for `plan` and for the operator. Field docstrings are the
descriptions that users read. What is refused here is what the API server is to refuse.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Final, Literal, NewType, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from serving_contract.errors import InvalidDeployment
from serving_contract.kubernetes import (
    API_VERSION,
    DEFAULT_RESOURCE,
    KIND,
    MAX_NAME_LENGTH,
)
from serving_contract.topology import MAX_DATA_PARALLEL_SIZE, MAX_TENSOR_PARALLEL_SIZE

_NAME: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_PVC: Final = re.compile(r"pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^/\s]+)*")
_HF: Final = re.compile(r"hf://[\w.-]+/[\w.-]+(@[\w./-]+)?")
_ABSOLUTE: Final = re.compile(r"(/[^/\s]+)+")
_PERCENT: Final = re.compile(r"(100|[1-9]?[0-9])%")
_FRACTION: Final = re.compile(r"0?\.[0-9]+|1(\.0+)?")


def _model_uri(uri: str) -> str:
    forms = (_ABSOLUTE, _PVC, _HF)
    if not any(form.fullmatch(uri) for form in forms) or ".." in uri.split("/"):
        raise ValueError("must be /abs/path, pvc://CLAIM[/sub/path] or hf://ORG/NAME[@REVISION]")
    return uri


def _name(name: str) -> str:
    if len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name):
        raise ValueError(
            f"must be a DNS label of at most {MAX_NAME_LENGTH} characters that begins with a letter"
        )
    return name


def _int_or_percent(value: object) -> object:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if is_integer or (isinstance(value, str) and _PERCENT.fullmatch(value)):
        return value
    raise ValueError("must be an integer or a percentage such as 25%")


def _fraction(value: str) -> str:
    if not _FRACTION.fullmatch(value) or float(value) == 0:
        raise ValueError('must be a decimal string above 0 and at most 1, such as "0.9"')
    return value


ModelUri = Annotated[str, Field(max_length=1024), AfterValidator(_model_uri)]
Fraction = Annotated[str, Field(max_length=16), AfterValidator(_fraction)]
IntOrPercent = Annotated[
    Annotated[int, Field(strict=True, ge=0)] | str, BeforeValidator(_int_or_percent)
]
Seconds = Annotated[int, Field(strict=True, ge=0)]
PositiveInt = Annotated[int, Field(strict=True, ge=1)]
PodTemplate = NewType("PodTemplate", dict[str, JsonValue])
"""A PodTemplateSpec laid over ours. A plain dict: typed models silently drop unknown fields."""


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


class _Fields(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class Model(_Fields):
    """The model that is served."""

    uri: ModelUri
    """`/abs/path` inside the engine container, `pvc://CLAIM[/sub/path]` mounted read-only, or
    `hf://ORG/NAME[@REVISION]`."""
    served_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Name in the OpenAI API; `metadata.name` if absent."""
    secret_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Secret whose key `token` becomes HF_TOKEN; for `hf://` only."""

    @model_validator(mode="after")
    def _secret_is_for_the_hub(self) -> Self:
        if self.secret_name is not None and not self.uri.startswith("hf://"):
            raise ValueError("secretName is for a uri that begins with hf://")
        return self


class Parallelism(_Fields):
    """How devices are split."""

    data_parallel_size: Annotated[int, Field(strict=True, ge=0, le=MAX_DATA_PARALLEL_SIZE)] = 1
    """Number of replicas; 0 is scaled to zero. This is what /scale, HPA and KEDA change."""
    tensor_parallel_size: Annotated[int, Field(strict=True, ge=1, le=MAX_TENSOR_PARALLEL_SIZE)] = 1
    """Devices of one replica."""


class Devices(_Fields):
    """What a replica runs on."""

    resource_name: Annotated[str, Field(min_length=1, max_length=253)] = DEFAULT_RESOURCE
    """Extended resource asked for, tensorParallelSize of them; `cpu` asks for no device."""


class Engine(_Fields):
    """The engine and its limits."""

    kind: EngineKind = EngineKind.ASCEND_SERVING
    """AscendServing, VLLM, PyPTO or Custom."""
    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Container image; if absent the operator's own at the pod's creation."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type of weights and cache."""
    max_model_len: PositiveInt | None = None
    """Longest sequence in tokens; the model's own limit if absent."""
    max_num_seqs: PositiveInt = 256
    """Most sequences in one step."""
    max_num_batched_tokens: PositiveInt = 8192
    """Most tokens in one step."""
    device_memory_fraction: Fraction = "0.9"
    """Part of a device's memory that the engine may use."""
    prefix_caching: Annotated[bool, Field(strict=True)] = True
    """Share the cache of equal prompt beginnings."""
    args: tuple[str, ...] = ()
    """Appended to the engine's command line."""


class SessionAffinity(_Fields):
    """Sends the requests of a session to the replica that served it last."""

    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$", max_length=128)]
    """Request header that names the session."""
    ttl_seconds: PositiveInt = 600
    """How long a silent session is remembered."""


class Service(_Fields):
    """The Service that clients use."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Kind of Service."""
    port: Annotated[int, Field(strict=True, ge=1, le=65_535)] = 80
    """Port of the Service."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations of the Service."""


class Router(_Fields):
    """The router in front of the replicas."""

    replicas: Seconds | None = None
    """Router pods; absent: 2 at creation, then whatever is live."""
    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Container image; if absent the operator's own."""
    policy: Policy = Policy.LEAST_PENDING_TOKENS
    """How the router chooses among replicas."""
    max_pending_tokens_per_replica: PositiveInt = 65_536
    """429 when every routable replica has more pending tokens and requests are waiting."""
    session_affinity: SessionAffinity | None = None
    """Sends the requests of a session to the replica that served it last."""
    api_keys_secret_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Secret of which every value is a valid bearer token; absent: open."""
    tls_secret_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """kubernetes.io/tls Secret; absent: plain HTTP."""
    service: Service = Field(default_factory=Service)
    """The Service that clients use."""
    template: PodTemplate | None = None
    """PodTemplateSpec laid over the router pod."""


class Rollout(_Fields):
    """How a change reaches the replicas."""

    max_unavailable: IntOrPercent = 1
    """Replicas that may be down by our doing: integer or percentage, rounded down."""
    max_surge: IntOrPercent = 0
    """Replicas beyond dataParallelSize during a rollout: integer or percentage, rounded up."""
    min_ready_seconds: Seconds = 0
    """How long a replica must be ready to count as available."""
    progress_deadline_seconds: PositiveInt = 1800
    """How long a new replica may take to become ready before the rollout stops."""
    drain_timeout_seconds: Seconds = 600
    """What a replica or router gets to finish its streams."""

    @model_validator(mode="after")
    def _can_move(self) -> Self:
        if {str(self.max_unavailable), str(self.max_surge)} <= {"0", "0%"}:
            raise ValueError("maxUnavailable and maxSurge must not both be 0")
        return self


class NodeLost(_Fields):
    """What to do with a pod whose node is gone."""

    policy: Literal["Wait", "ForceDelete"] = "Wait"
    """Wait for the node, or delete the pod by force."""
    after_seconds: Seconds = 60
    """How long past its deletionTimestamp a pod counts as lost."""


class Spec(_Fields):
    """What is wanted."""

    model: Model
    """The model that is served."""
    parallelism: Parallelism = Field(default_factory=Parallelism)
    """How devices are split."""
    devices: Devices = Field(default_factory=Devices)
    """What a replica runs on."""
    engine: Engine = Field(default_factory=Engine)
    """The engine and its limits."""
    template: PodTemplate | None = None
    """PodTemplateSpec laid over the replica pod."""
    router: Router = Field(default_factory=Router)
    """The router in front of the replicas."""
    rollout: Rollout = Field(default_factory=Rollout)
    """How a change reaches the replicas."""
    node_lost: NodeLost = Field(default_factory=NodeLost)
    """What to do with a pod whose node is gone."""
    paused: Annotated[bool, Field(strict=True)] = False
    """No scaling and no new revision while true."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.parallelism.tensor_parallel_size > 1 and is_vnpu(self.devices.resource_name):
            raise ValueError(
                f"parallelism.tensorParallelSize must be 1 with the vNPU resource "
                f"devices.resourceName {self.devices.resource_name}"
            )
        if self.engine.kind is EngineKind.CUSTOM and self.engine.image is None:
            raise ValueError("engine.image is required with engine.kind Custom")
        return self


class Metadata(BaseModel):
    """Object metadata, as far as it is read here; the API server knows the rest."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Annotated[str, AfterValidator(_name)]
    namespace: Annotated[str, Field(max_length=63)] = "default"


class ServingDeployment(BaseModel):
    """One model served by dp x tp devices behind a router."""

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
    vendor, _, device = resource_name.partition("/")
    return vendor == "huawei.com" and (device == "npu-core" or bool(re.search(r"-\d+c", device)))


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
