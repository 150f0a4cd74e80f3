"""One ServingDeployment on the real cluster: its pods, its answers, its times."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Final

import openai
from tests.cluster.api import Api, Body
from tests.cluster.watch import Watch
from tests.operator.sdep import Sdep

WAIT_S: Final = 180.0
"""Generous: a wait that ends here is a failure, not a measurement."""


class Served(Sdep):
    """A ServingDeployment whose pods run."""

    @property
    def url(self) -> str:
        """The address of the client Service, which this machine reaches as a pod would."""
        service = self.api.get(f"/api/v1/namespaces/{self.namespace}/services/{self.name}")
        return f"http://{service['spec']['clusterIP']}"

    def client(self, **settings: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", **settings)

    def ask(self, tokens: int = 4) -> openai.types.Completion:
        """Ask for a few tokens."""
        with self.client(timeout=60) as client:
            return client.completions.create(model="tiny", prompt="The river", max_tokens=tokens)

    def routers(self) -> list[Body]:
        selector = f"ascend-serving.dev/name={self.name},app.kubernetes.io/component=router"
        return self.api.list(self.pods_path, selector)

    def wait_served(self, timeout_s: float = WAIT_S) -> None:
        """Wait until every replica and router is there and ready, and nothing else is."""

        def is_whole() -> bool:
            status, spec = self.status(), self.read()["spec"]
            dp = spec["parallelism"]["dataParallelSize"]
            ready = (status.get("readyReplicas"), status.get("updatedReplicas"))
            return ready == (dp, dp) and len(self.pods()) == dp and self.are_routers_settled()

        self.wait(is_whole, f"{self.name} is whole", timeout_s)
        self.wait_complete()

    def are_routers_settled(self) -> bool:
        """Whether the routers' Deployment has come to rest at its newest revision."""
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{self.name}-router"
        body = self.api.get(path)
        status = body["status"]
        wanted = body["spec"]["replicas"]
        counts = [status.get(f"{kind}eplicas") for kind in ("r", "readyR", "updatedR")]
        return (
            status.get("observedGeneration") == body["metadata"]["generation"]
            and counts == [wanted] * 3
            and len(self.routers()) == wanted
        )

    def wait_gone(self, uid: str, timeout_s: float = WAIT_S) -> None:
        """Wait until the pod with this uid is gone."""
        self.wait(lambda: uid not in self.uids().values(), f"pod {uid} is gone", timeout_s)

    def nodes(self) -> set[str]:
        """The nodes on which the replicas are."""
        return {pod["spec"]["nodeName"] for pod in self.pods()}

    def in_flight(self, pod: str) -> int:
        """How many requests the routers have under way on a replica."""
        loads = [one for router in self.routers() for one in self.load_of(router)]
        return sum(one["in_flight"] for one in loads if one["pod"] == pod)

    def load_of(self, router: Body) -> list[Body]:
        """What one router says of the replicas."""
        url = f"http://{router['status']['podIP']}:8000/v1/load"
        with urllib.request.urlopen(url, timeout=10) as answer:
            replicas: list[Body] = json.load(answer)["replicas"]
        return replicas

    def known_to(self, router: Body) -> set[str]:
        """The pods that one router knows."""
        return {str(replica["pod"]) for replica in self.load_of(router)}

    def watch_endpoint(self, pod: str) -> EndpointWatch:
        """Begin to watch for the end of a replica's endpoint."""
        return EndpointWatch(self.api, self.namespace, f"{self.name}-replicas", pod)


class EndpointWatch:
    """Sees when a pod is no endpoint of a Service any more, or no ready one."""

    def __init__(self, api: Api, namespace: str, service: str, pod: str) -> None:
        self._pod = pod
        self._begun = threading.Event()
        self._vanished = threading.Event()
        self._at = 0.0
        path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        selector = {"labelSelector": f"kubernetes.io/service-name={service}"}
        self._watch = Watch(api, path, self, selector)
        self._watch.start()

    def wait(self) -> float:
        """Return when it vanished, by the monotonic clock."""
        assert self._vanished.wait(WAIT_S), f"{self._pod} is still an endpoint"
        self._watch.stop()
        return self._at

    def wait_begun(self) -> None:
        """Wait until the watch has seen the endpoint that is to vanish."""
        assert self._begun.wait(WAIT_S), f"{self._pod} is no endpoint"

    def replace(self, items: list[Body]) -> None:
        """See `Watch`."""
        if any(self._pod in _ready_pods(item) for item in items):
            self._begun.set()

    def event(self, kind: str, item: Body) -> None:
        """See `Watch`."""
        if self._pod not in _ready_pods(item) and not self._vanished.is_set():
            self._at = time.monotonic()
            self._vanished.set()


def _ready_pods(endpoint_slice: Body) -> set[str]:
    return {
        endpoint["targetRef"]["name"]
        for endpoint in endpoint_slice.get("endpoints") or ()
        if endpoint["conditions"].get("ready")
    }


def until(holds: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> float:
    """Wait until something holds, looking often, and return how long that took in seconds."""
    began = time.monotonic()
    while not _tried(holds):
        assert time.monotonic() - began < timeout_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


def _tried(holds: Callable[[], object]) -> bool:
    try:
        return bool(holds())
    except (OSError, urllib.error.URLError, openai.APIError):
        return False


def cpu_spec(**fields: Any) -> dict[str, Any]:
    """Return the spec of the tiny model on processors, from the claim `weights`."""
    return {
        "model": {"uri": "pvc://weights/tiny", "servedName": "tiny"},
        "parallelism": {"dataParallelSize": 2},
        "devices": {"resourceName": "cpu"},
        "engine": {"maxNumSeqs": 16},
        "rollout": {"drainTimeoutSeconds": 60},
        "template": {"spec": {"containers": [engine_resources()]}},
    } | fields


def engine_resources() -> dict[str, Any]:
    """Return so little of a container that five engines fit beside each other."""
    return {"name": "engine", "resources": {"requests": {"cpu": "100m", "memory": "768Mi"}}}


def spread_template(name: str) -> dict[str, Any]:
    """Return a template by which replicas go to as many nodes as take pods."""
    constraint = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        # A node that is being drained is none to spread to.
        "nodeTaintsPolicy": "Honor",
        "labelSelector": {"matchLabels": selector_of(name)},
    }
    spec = {"containers": [engine_resources()], "topologySpreadConstraints": [constraint]}
    return {"spec": spec}


def selector_of(name: str) -> dict[str, str]:
    """Return the labels of a ServingDeployment's replicas."""
    return {"ascend-serving.dev/name": name, "app.kubernetes.io/component": "replica"}


def make_weights(api: Api, namespace: str, folder: str) -> None:
    """Make the claim `weights` of a namespace, which is a folder of this machine."""
    capacity = {"storage": "1Gi"}
    modes = ["ReadOnlyMany"]
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"weights-{namespace}"},
        "spec": {
            "capacity": capacity,
            "accessModes": modes,
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "hostPath": {"path": folder},
            "claimRef": {"namespace": namespace, "name": "weights"},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "weights"},
        "spec": {
            "accessModes": modes,
            "storageClassName": "",
            "volumeName": f"weights-{namespace}",
            "resources": {"requests": capacity},
        },
    }
    api.create("/api/v1/persistentvolumes", volume)
    claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    api.create(claims, claim)
    api.wait(
        lambda: api.get(f"{claims}/weights")["status"].get("phase") == "Bound" or None, "bound"
    )
