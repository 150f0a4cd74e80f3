"""What goes wrong in a replica.

RuntimeFailure
|-- Refused             exit 2 before anything starts: one line for the user
|   |-- NotImplementedYet   a flag whose backend comes later
|   `-- InvalidModel        missing or corrupt model folder, unsupported architecture
|-- InvalidRequest      HTTP 400; carries the field's name
`-- EngineStopped       the worker is gone or the engine was stopped: HTTP 503, typed error
"""

from __future__ import annotations


class RuntimeFailure(Exception):
    """Base of the runtime's errors; the message is one line made for users."""


class Refused(RuntimeFailure):
    """Something that the user must mend before a start can succeed."""


class NotImplementedYet(Refused):
    """A flag whose backend does not exist yet."""


class InvalidModel(Refused):
    """A model folder that cannot be served."""


class InvalidRequest(RuntimeFailure):
    """A request that the engine cannot take; `param` names the field."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class EngineStopped(RuntimeFailure):
    """The worker is gone or the engine was stopped."""
