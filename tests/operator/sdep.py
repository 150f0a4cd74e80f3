"""A ServingDeployment as tests look at it: its conditions, pods and Events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.cluster.api import Api, Body
from tests.operator.operator_process import deployment


class Sdep:
    """One ServingDeployment of the test and its children."""

    def __init__(self, api: Api, namespace: str, name: str = "qwen") -> None:
        self.api = api
        self.namespace = namespace
        self.name = name
        self.collection = (
            f"/apis/ascend-serving.dev/v1alpha1/namespaces/{namespace}/servingdeployments"
        )
        self.path = f"{self.collection}/{name}"
        self.pods_path = f"/api/v1/namespaces/{namespace}/pods"

    def create(self, **spec: Any) -> Body:
        return self.api.create(self.collection, deployment(self.name, **spec))

    def change(self, **spec: Any) -> Body:
        return self.api.patch(self.path, {"spec": spec})

    def read(self) -> Body:
        return self.api.get(self.path)

    def status(self) -> Body:
        status: Body = self.read().get("status", {})
        return status

    def condition(self, kind: str) -> Body:
        found = [one for one in self.status().get("conditions", []) if one["type"] == kind]
        return found[0] if found else {}

    def reason(self, kind: str) -> str:
        return str(self.condition(kind).get("reason", ""))

    def pods(self) -> list[Body]:
        selector = f"ascend-serving.dev/name={self.name},app.kubernetes.io/component=replica"
        return self.api.list(self.pods_path, selector)

    def pod(self, index: int) -> Body:
        return self.api.get(f"{self.pods_path}/{self.name}-{index}")

    def uids(self) -> dict[str, str]:
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in self.pods()}

    def delete_pod(self, index: int, **options: Any) -> None:
        self.api.delete(f"{self.pods_path}/{self.name}-{index}", options or None)

    def events(self) -> list[str]:
        """Reasons of the Events on it, oldest first."""
        path = f"/api/v1/namespaces/{self.namespace}/events"
        found = [e for e in self.api.list(path) if e["involvedObject"]["name"] == self.name]
        ours = [e for e in found if e["involvedObject"]["kind"] == "ServingDeployment"]
        ours.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
        return [event["reason"] for event in ours]

    def wait(self, holds: Callable[[], object], what: str, timeout_s: float = 60) -> None:
        self.api.wait(lambda: holds() or None, what, timeout_s)

    def wait_reason(self, kind: str, reason: str) -> Body:
        self.wait(lambda: self.reason(kind) == reason, f"{kind} {reason}; {self.status()}")
        return self.condition(kind)

    def wait_complete(self) -> None:
        def is_complete() -> bool:
            body = self.read()
            status = body.get("status", {})
            reasons = {one["type"]: one["reason"] for one in status.get("conditions", [])}
            return (
                status.get("observedGeneration") == body["metadata"]["generation"]
                and reasons.get("Progressing") == "Complete"
                and reasons.get("Available") in {"ReplicasReady", "ScaledToZero"}
            )

        self.wait(is_complete, f"complete; {self.status()}")
