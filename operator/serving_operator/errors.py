"""What goes wrong in the operator.

OperatorError
|-- TemplateInvalid      a template that may not say what it says; the user's to mend
|-- LeadershipLost       the lease ran out under us: no write may follow
`-- ApiError             the API server did not do what it was asked
    |-- Refused          it answered with a status: 4xx, and 5xx after all retries
    `-- Unavailable      no answer
"""

from __future__ import annotations


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
        message: Kubernetes' own sentence.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message or f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.message = message


class Unavailable(ApiError):
    """The API server could not be reached, or did not answer in time."""
