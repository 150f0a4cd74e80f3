"""What goes wrong in the operator.

OperatorError
|-- TemplateInvalid      a template that may not say what it says; the user's to mend
|-- LeadershipLost       the lease ran out under us: no write may follow
`-- ApiError             the API server did not do what it was asked
    |-- Refused          it answered with a status: 4xx, and 5xx after all retries
    |-- Unavailable      no answer
    `-- DoesNotRest      each of many looks found something to do
"""

from __future__ import annotations

MAX_MESSAGE = 2048
"""Of somebody else's words: a status holds up to 64 of them, and etcd 1.5 MiB."""


class OperatorError(Exception):
    """Base of the operator's errors."""


class TemplateInvalid(OperatorError):
    """A template that may not say what it says; the message begins with the path."""


class LeadershipLost(OperatorError):
    """The lease ran out: another operator may be at work."""


class ApiError(OperatorError):
    """The API server did not do what it was asked."""


class Refused(ApiError):
    """The API server answered with an error status.

    Attributes:
        status: the HTTP status.
        reason: Kubernetes' own word, such as `AlreadyExists`.
        message: Kubernetes' own sentence, as one line of bounded length.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message or f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.message = " ".join(message.split())[:MAX_MESSAGE]


class Unavailable(ApiError):
    """The API server could not be reached, or did not answer in time."""


class DoesNotRest(ApiError):
    """Each of many looks found something to do: somebody undoes it."""
