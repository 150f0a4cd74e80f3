"""Names that Kubernetes sees: API group, labels, annotations, ports. Nowhere else."""

from __future__ import annotations

from typing import Final

GROUP: Final = "ascend-serving.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "ServingDeployment"
PLURAL: Final = "servingdeployments"
SINGULAR: Final = "servingdeployment"
SHORT_NAME: Final = "sdep"

CPU_RESOURCE: Final = "cpu"
DEFAULT_RESOURCE: Final = "huawei.com/Ascend910"
MAX_NAME_LENGTH: Final = 50
"""So that the longest suffix of a child's name still fits a DNS label."""

LABEL_NAME: Final = f"{GROUP}/name"
"""On every child: the ServingDeployment's name."""
LABEL_REPLICA_INDEX: Final = f"{GROUP}/replica-index"
LABEL_REVISION: Final = f"{GROUP}/revision"
APP_LABEL_PREFIX: Final = "app.kubernetes.io/"
LABEL_APP_NAME: Final = f"{APP_LABEL_PREFIX}name"
LABEL_INSTANCE: Final = f"{APP_LABEL_PREFIX}instance"
LABEL_COMPONENT: Final = f"{APP_LABEL_PREFIX}component"
LABEL_MANAGED_BY: Final = f"{APP_LABEL_PREFIX}managed-by"

APP_NAME: Final = "ascend-serving"
OPERATOR: Final = "ascend-serving-operator"
"""Value of managed-by, field manager of every write, name of the Lease."""
REPLICA: Final = "replica"
ROUTER: Final = "router"

ANNOTATION_APPLIED: Final = f"{GROUP}/applied"
"""On children that are applied: the hash of what was meant, so that a restart knows it."""
ANNOTATION_DEVICES: Final = "huawei.com/AscendReal"
"""Written by the device plugin: the devices that a pod really got."""
ANNOTATION_POD_STATUS: Final = "huawei.com/pod-status"
"""Written by mind-cluster: `Unhealthy` when a device of the pod is."""

ENGINE_CONTAINER: Final = "engine"
ROUTER_CONTAINER: Final = "router"
PORT_NAME: Final = "http"
PORT: Final = 8000

ASCEND_VISIBLE_DEVICES: Final = "ASCEND_VISIBLE_DEVICES"
ASCEND_RT_VISIBLE_DEVICES: Final = "ASCEND_RT_VISIBLE_DEVICES"
