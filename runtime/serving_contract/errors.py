"""What goes wrong on the ground that the components share.

ContractError
|-- InvalidTopology     sizes and devices that do not fit together
|-- InvalidDeployment   a ServingDeployment that the API server would refuse
`-- MalformedReport     a load report that cannot be read
"""


class ContractError(ValueError):
    """Base of the contract's errors; the message is one line made for users."""


class InvalidTopology(ContractError):
    """Sizes and devices that do not fit together."""


class InvalidDeployment(ContractError):
    """A ServingDeployment that the API server would refuse."""


class MalformedReport(ContractError):
    """A load report that cannot be read."""
