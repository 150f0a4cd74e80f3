"""What goes wrong with the test cluster, each with the one line that its reader needs.

ClusterUnavailable   no cluster can be had on this machine; the message says what would cure it
ApiRefused           the API server answered, and not with success
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

OTHER_WAYS: Final = (
    "name a cluster that the tests may change with ASCEND_SERVING_TEST_KUBECONFIG, "
    "or a folder of binaries with KUBEBUILDER_ASSETS"
)


class ClusterUnavailable(Exception):
    """No cluster can be had: the message names what is missing and what to do."""


class ApiRefused(Exception):
    """The API server's refusal, in its own words.

    Attributes:
        status: the HTTP status.
        reason: `NotFound`, `Conflict`, `Invalid` and so on; empty where the answer has none.
        details: of the Status object, such as the causes with the fields that are wrong.
    """

    def __init__(
        self, status: int, reason: str, message: str, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.details = dict(details or {})

    @property
    def is_passing(self) -> bool:
        """Whether the same request may succeed a moment later: the server starts or is busy."""
        return self.status == 429 or self.status >= 500
