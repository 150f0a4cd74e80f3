"""Times as Kubernetes writes them: RFC 3339, UTC, whole seconds."""

from __future__ import annotations

from datetime import UTC, datetime


def parse(text: str) -> datetime | None:
    """Read a time; None if there is none."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC) if text else None
    except ValueError:
        return None


def write(time: datetime) -> str:
    """Write a time."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
