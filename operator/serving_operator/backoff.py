"""How long a replica that failed waits for its next pod: 10 s, doubling, at most 5 minutes.

The count lies in the status, so that it outlives the operator. A failed pod is named there by its
uid and stays until its replica's time has come: so each failure counts once, whichever clock the
API server has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from serving_contract.status import Status
from serving_operator import timestamps

_FIRST: Final = timedelta(seconds=10)
_LONGEST: Final = timedelta(minutes=5)
_MAX_DOUBLINGS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Failures in a row of one replica.

    Attributes:
        failed_pod_uid: of the pod that failed last; empty when none could be made.
    """

    failures: int
    retry_at: datetime
    failed_pod_uid: str = ""


def delay(failures: int) -> timedelta:
    """Return how long to wait after so many failures."""
    factor: int = 2 ** min(failures - 1, _MAX_DOUBLINGS)
    return min(_FIRST * factor, _LONGEST)


def after_failure(before: Backoff | None, now: datetime, failed_pod_uid: str = "") -> Backoff:
    """Count one more failure."""
    failures = 1 if before is None else before.failures + 1
    # Whole seconds are what the status can hold.
    retry_at = (now + delay(failures)).replace(microsecond=0) + timedelta(seconds=1)
    return Backoff(failures=failures, retry_at=retry_at, failed_pod_uid=failed_pod_uid)


def read(status: Status) -> Mapping[int, Backoff]:
    """Return the replicas that back off, by index."""
    found = {}
    for replica in status.replica_statuses:
        retry_at = timestamps.parse(replica.retry_time or "")
        if replica.failures and retry_at is not None:
            found[replica.index] = Backoff(
                failures=replica.failures,
                retry_at=retry_at,
                failed_pod_uid=replica.failed_pod_uid or "",
            )
    return found
