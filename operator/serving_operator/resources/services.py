"""Services, disruption budgets and the network policy around replicas and routers."""

from __future__ import annotations

from serving_contract.kubernetes import PORT, PORT_NAME, REPLICA, ROUTER
from serving_operator import naming
from serving_operator.body import Body
from serving_operator.budget import of_rollout
from serving_operator.subject import Subject


def client_service(subject: Subject) -> Body:
    """Return the Service that clients use."""
    wanted = subject.spec.router.service
    metadata = subject.metadata(subject.name, ROUTER)
    if wanted.annotations:
        metadata["annotations"] = dict(wanted.annotations)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": wanted.type,
            "selector": naming.selector(subject.name, ROUTER),
            "ports": [_port(wanted.port)],
        },
    }


def headless_service(subject: Subject) -> Body:
    """Return the Service whose EndpointSlices tell the routers where the replicas are."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": subject.metadata(naming.replicas(subject.name), REPLICA),
        "spec": {
            "clusterIP": "None",
            "selector": naming.selector(subject.name, REPLICA),
            "ports": [_port(PORT)],
        },
    }


def _port(port: int) -> Body:
    return {"name": PORT_NAME, "port": port, "targetPort": PORT_NAME, "protocol": "TCP"}


def url(subject: Subject) -> str:
    """Return where clients inside the cluster reach the API."""
    router = subject.spec.router
    scheme, usual = ("http", 80) if router.tls_secret_name is None else ("https", 443)
    port = "" if router.service.port == usual else f":{router.service.port}"
    return f"{scheme}://{subject.name}.{subject.namespace}.svc{port}"


def replica_budget(subject: Subject) -> Body:
    """Return how many replicas a node drain may take at once."""
    budget = of_rollout(subject.spec.rollout, subject.dp)
    name = naming.replicas(subject.name)
    return _budget(subject, name, REPLICA, max(1, budget.max_unavailable))


def router_budget(subject: Subject) -> Body:
    """Return how many routers a node drain may take at once."""
    return _budget(subject, naming.router(subject.name), ROUTER, 1)


def _budget(subject: Subject, name: str, component: str, max_unavailable: int) -> Body:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": subject.metadata(name, component),
        "spec": {
            "maxUnavailable": max_unavailable,
            "selector": {"matchLabels": naming.selector(subject.name, component)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def network_policy(subject: Subject) -> Body:
    """Return what lets only this ServingDeployment's routers reach its replicas."""
    routers = {"podSelector": {"matchLabels": naming.selector(subject.name, ROUTER)}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": subject.metadata(naming.replicas(subject.name), REPLICA),
        "spec": {
            "podSelector": {"matchLabels": naming.selector(subject.name, REPLICA)},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [routers], "ports": [{"port": PORT_NAME, "protocol": "TCP"}]}],
        },
    }
