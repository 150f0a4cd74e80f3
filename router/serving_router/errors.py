"""What goes wrong in the router.

    RouterError
    |-- Rejected            no replica is asked
    |   |-- NoReplicaReady      503 no_replica_ready, with Retry-After
    |   |-- QueueFull           429 queue_full, with Retry-After
    |   `-- RouterStopping      503: the drain is over
    |-- ReplicaFailed       502 replica_failed; tried elsewhere before the first byte
    |   |-- ReplicaUnreachable  no connection, no reports: not chosen until it is heard of again
    |   `-- ReplicaRefused      it answered 503, as a draining replica does
    |-- InvalidReplicas     a list of replica URLs that cannot be read
    |-- InvalidAccess       no way to the API server is given, or one that is not understood
    `-- DiscoveryFailed     the API server did not tell; the last known replicas stay
        |-- Unauthorized        401: the token may just have been replaced
        |-- Forbidden           403: the Role lacks a right
        |-- WatchSilent         not even a bookmark came: the watch may be deaf, list again
        |-- MalformedAnswer     an answer or an event that cannot be read: list again
        `-- HistoryGone         410: the version is no longer known, list again

After the first byte of a stream each of them is an event in it.
"""

from __future__ import annotations


class RouterError(Exception):
    """Base of the router's errors; the message is one line made for users."""

    status = 502
    code = "replica_failed"
    retry_after_s: int | None = None


class Rejected(RouterError):
    """No replica is asked; the client should try again later."""


class NoReplicaReady(Rejected):
    """There is no replica to send a request to."""

    status = 503
    code = "no_replica_ready"
    retry_after_s = 1


class QueueFull(Rejected):
    """Every routable replica is above its limit."""

    status = 429
    code = "queue_full"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RouterStopping(Rejected):
    """The router's drain is over."""

    status = 503
    code = "no_replica_ready"
    retry_after_s = 1


class ReplicaFailed(RouterError):
    """A replica broke off before its answer was whole."""


class ReplicaUnreachable(ReplicaFailed):
    """No connection to the replica could be made."""


class ReplicaRefused(ReplicaFailed):
    """The replica takes no new requests now."""

    status = 503
    code = "no_replica_ready"
    retry_after_s = 1


class InvalidReplicas(RouterError, ValueError):
    """A list of replica URLs that cannot be read."""


class InvalidAccess(RouterError, ValueError):
    """No way to the API server is given, or one that is not understood."""


class DiscoveryFailed(RouterError):
    """The API server did not tell; no client ever sees this one.

    Args:
        message: one line.
        retry_after_s: how long the API server asked to be left alone.
    """

    needs_list = False
    """Whether a watch cannot go on where it was."""

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unauthorized(DiscoveryFailed):
    """The token is not accepted."""


class Forbidden(DiscoveryFailed):
    """The token is accepted, but the right is missing."""


class WatchSilent(DiscoveryFailed):
    """Not even a bookmark came."""

    needs_list = True


class MalformedAnswer(DiscoveryFailed):
    """An answer or an event that cannot be read."""

    needs_list = True


class HistoryGone(DiscoveryFailed):
    """The API server no longer knows what came after our version."""

    needs_list = True
