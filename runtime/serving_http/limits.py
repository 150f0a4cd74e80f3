"""What one HTTP connection may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    max_head_bytes: int = 64 * 1024
    max_body_bytes: int = 16 * 1024 * 1024
    head_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    idle_timeout_s: float = 75.0
    linger_s: float = 2.0
    """How long a refused client may still send what is thrown away: closing at once could destroy
    the refusal before it is read (RFC 9112, section 9.6)."""
