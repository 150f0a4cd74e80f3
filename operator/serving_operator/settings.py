"""What the command line decides about an operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RESYNC_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Container images for what a ServingDeployment leaves open.

    Attributes:
        engine: of replicas with devices.
        engine_cpu: of replicas without.
    """

    engine: str
    engine_cpu: str
    router: str

    @classmethod
    def of_version(cls, version: str) -> Images:
        """Return the project's own images of one version."""
        return cls(
            engine=f"ascend-serving/engine-npu:{version}",
            engine_cpu=f"ascend-serving/engine-cpu:{version}",
            router=f"ascend-serving/router:{version}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What the operator adds to every ServingDeployment.

    Attributes:
        network_policy: only a ServingDeployment's routers may reach its replicas.
    """

    images: Images
    network_policy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one operator process.

    Attributes:
        namespaces: those it serves; none = all.
        lease_namespace: where the Lease lies by which operators elect a leader.
        identity: what this process calls itself in the Lease.
    """

    defaults: Defaults
    namespaces: tuple[str, ...] = ()
    host: str = "0.0.0.0"
    port: int = 8080
    lease_namespace: str = "default"
    identity: str = "operator"
    resync_s: float = RESYNC_S
