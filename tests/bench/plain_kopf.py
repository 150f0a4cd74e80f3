"""What many operators look like: kopf's own `on.create` and `on.update`, one write per change.

The contender of the operator's bench; it does nothing but tell when it has seen a change.
"""

from __future__ import annotations

import sys
from typing import Any

import kopf


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.scanning.disabled = True
    settings.posting.enabled = False


@kopf.on.create("ascend-serving.dev", "v1alpha1", "servingdeployments")
@kopf.on.update("ascend-serving.dev", "v1alpha1", "servingdeployments")
async def seen(patch: kopf.Patch, meta: Any, **_: Any) -> None:
    patch.metadata.annotations["example.com/seen"] = str(meta["generation"])


@kopf.on.event("", "v1", "pods", labels={"app.kubernetes.io/component": "replica"})
async def pod(**_: Any) -> None:
    return None


if __name__ == "__main__":
    kopf.run(
        clusterwide=True,
        standalone=True,
        liveness_endpoint=f"http://127.0.0.1:{sys.argv[1]}/healthz",
    )
