from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.api import Api, Body
from tests.cluster.errors import ApiRefused
from tests.contract.custom_resource import CRDS, answer, deployments, install_crd, written
from tests.contract.specs import deployment

from serving_contract.crd import definition
from serving_contract.status import Status


def older_crd(group: str) -> Body:
    """Return what a first version might have been: fewer fields, no rules, no limits."""
    crd: Body = of_group(group)
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    del schema["metadata"]
    spec: dict[str, Any] = schema["spec"]["properties"]
    spec["rollout"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    spec["model"]["properties"] = {"uri": {"type": "string"}}
    del spec["model"]["x-kubernetes-validations"], spec["nodeLost"], spec["router"]
    return crd


def of_group(group: str) -> Body:
    crd: Body = copy.deepcopy(definition())
    crd["metadata"]["name"] = f"{crd['spec']['names']['plural']}.{group}"
    crd["spec"]["group"] = group
    crd["spec"]["names"] |= {"shortNames": [], "categories": []}
    return crd


@pytest.fixture
def upgraded(api: Api, namespace: str) -> Iterator[str]:
    """An object that an older CRD let in and the newer one would refuse; its path."""
    group = f"{namespace}.example"
    path = deployments(namespace, group)
    crd = install_crd(api, older_crd(group))
    old = {**deployment("{}"), "apiVersion": f"{group}/v1alpha1"}
    old["spec"] = {"model": {"uri": "weights"}, "rollout": {"maxSurge": "many"}}
    api.create(path, old)
    install_crd(api, of_group(group))
    fresh = {**copy.deepcopy(old), "metadata": {"name": "fresh"}}
    api.wait(lambda: answer(api, path, fresh) == 422, "the newer CRD is in force")
    yield f"{path}/qwen3"
    api.delete(f"{CRDS}/{crd['metadata']['name']}")


def test_object_of_an_older_crd_is_read_with_the_defaults_of_the_newer(
    api: Api, upgraded: str
) -> None:
    spec = api.get(upgraded)["spec"]
    assert spec["nodeLost"] == {"policy": "Wait", "afterSeconds": 60}
    assert spec["router"]["policy"] == "LeastPendingTokens"
    assert spec["model"] == {"uri": "weights"}


def test_object_of_an_older_crd_takes_changes_elsewhere(api: Api, upgraded: str) -> None:
    """Ratcheting: what was wrong already and is not touched is let through."""
    assert api.patch(upgraded, {"spec": {"paused": True}})["spec"]["paused"] is True
    api.patch(f"{upgraded}/scale", {"spec": {"replicas": 4}})
    changed = api.patch(f"{upgraded}/status", written(Status(replicas=1)))
    assert changed["spec"]["parallelism"]["dataParallelSize"] == 4
    assert changed["status"]["replicas"] == 1


def test_object_of_an_older_crd_cannot_be_made_worse(api: Api, upgraded: str) -> None:
    with pytest.raises(ApiRefused, match=r"spec\.model\.uri"):
        api.patch(upgraded, {"spec": {"model": {"uri": "other"}}})
