"""What the command line decides about a router."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from serving_contract.deployment import Policy, SessionAffinity
from serving_http.limits import Limits
from serving_http.tls import Tls


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSettings:
    """Settings of one router process.

    Attributes:
        served_model_name: None = learned from the replicas.
        api_keys: with `api_keys_dir`, what clients may show; neither = open to all.
        api_keys_dir: each file's content is a key; read again when it changes.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    served_model_name: str | None = None
    policy: Policy = Policy.LEAST_PENDING_TOKENS
    max_pending_tokens_per_replica: int = 65_536
    session_affinity: SessionAffinity | None = None
    drain_timeout_s: float = 30.0
    api_keys: tuple[str, ...] = ()
    api_keys_dir: Path | None = None
    tls: Tls | None = None
    limits: Limits = field(default_factory=Limits)
