"""Names, labels and owners of a ServingDeployment's children."""

from __future__ import annotations

import re
from typing import Final

from serving_contract.kubernetes import (
    API_VERSION,
    APP_NAME,
    KIND,
    LABEL_APP_NAME,
    LABEL_COMPONENT,
    LABEL_INSTANCE,
    LABEL_MANAGED_BY,
    LABEL_NAME,
    OPERATOR,
    REPLICA,
)
from serving_operator.body import Body

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,3}")


def replica_pod(name: str, index: int) -> str:
    """Return the name of a replica's pod: fixed, so that it can never exist twice."""
    return f"{name}-{index}"


def index_of(pod: str, name: str) -> int | None:
    """Return the replica index in a pod's name; None if it is not one of `name`'s."""
    suffix = pod.removeprefix(f"{name}-")
    return int(suffix) if suffix != pod and _INDEX.fullmatch(suffix) else None


def router(name: str) -> str:
    """Return the name of the router's Deployment, ServiceAccount, Role, RoleBinding and PDB."""
    return f"{name}-router"


def replicas(name: str) -> str:
    """Return the name of the replicas' headless Service, PDB and NetworkPolicy."""
    return f"{name}-replicas"


def labels(name: str, component: str) -> dict[str, str]:
    """Return the labels of every child."""
    return {
        LABEL_APP_NAME: APP_NAME,
        LABEL_INSTANCE: name,
        LABEL_COMPONENT: component,
        LABEL_MANAGED_BY: OPERATOR,
        LABEL_NAME: name,
    }


def selector(name: str, component: str) -> dict[str, str]:
    """Return the labels by which a component's pods are selected; they never change."""
    return {LABEL_NAME: name, LABEL_COMPONENT: component}


def selector_text(name: str) -> str:
    """Return the replicas' selector as `/scale` shows it."""
    return ",".join(f"{key}={value}" for key, value in selector(name, REPLICA).items())


def owner_reference(name: str, uid: str) -> Body:
    """Return the reference that makes the garbage collector remove a child with its owner."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
