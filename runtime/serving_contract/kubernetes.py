"""Names that Kubernetes sees: API group, labels, annotations, ports. Nowhere else."""

from __future__ import annotations

from typing import Final

GROUP: Final = "ascend-serving.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "ServingDeployment"

CPU_RESOURCE: Final = "cpu"
DEFAULT_RESOURCE: Final = "huawei.com/Ascend910"
MAX_NAME_LENGTH: Final = 50
"""So that the longest suffix of a child's name still fits a DNS label."""
