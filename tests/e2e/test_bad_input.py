"""What cannot start says why, in the words of the kubelet or the engine, and heals once mended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from tests.e2e.figures import Figures
from tests.e2e.served import Served, cpu_spec, engine_resources

ONE: Final = {"dataParallelSize": 1}


def with_engine(**fields: Any) -> dict[str, Any]:
    return {"template": {"spec": {"containers": [engine_resources() | fields]}}}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One mistake: what it is, what is said of it, and what mends it."""

    wrong: dict[str, Any]
    reason: str
    words: tuple[str, ...]
    mend: Callable[[Served], object] = field(repr=False)


def with_default_image(served: Served) -> None:
    served.change(engine={"image": None})


def with_the_model(served: Served) -> None:
    served.change(model={"uri": "pvc://weights/tiny"})


def with_the_secret(served: Served) -> None:
    secret = {"metadata": {"name": "hub"}, "stringData": {"token": "not-a-real-one"}}
    served.api.create(f"/api/v1/namespaces/{served.namespace}/secrets", secret)


def with_memory(served: Served) -> None:
    served.change(**with_engine())


def secret_env() -> list[dict[str, Any]]:
    source = {"secretKeyRef": {"name": "hub", "key": "token"}}
    return [{"name": "HUB_TOKEN", "valueFrom": source}]


CASES: Final = {
    "an image that does not exist": Case(
        wrong={"engine": {"image": "docker.io/ascend-serving/absent:1"}},
        reason="ImagePullFailed",
        words=("docker.io/ascend-serving/absent:1",),
        mend=with_default_image,
    ),
    "a model path that does not exist": Case(
        wrong={"model": {"uri": "pvc://weights/absent", "servedName": "tiny"}},
        reason="CrashLoop",
        words=("exited with code 2", "/model/absent: no such folder"),
        mend=with_the_model,
    ),
    "a Secret that does not exist": Case(
        wrong=with_engine(env=secret_env()),
        reason="ReplicaNotReady",
        words=("CreateContainerConfigError", 'secret "hub" not found'),
        mend=with_the_secret,
    ),
    "weights that do not fit": Case(
        wrong=with_engine(
            resources={
                "requests": {"cpu": "100m", "memory": "300Mi"},
                "limits": {"memory": "300Mi"},
            }
        ),
        reason="OutOfMemory",
        words=("container engine exited",),
        mend=with_memory,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_told_and_heals_once_mended(served: Served, name: str, figures: Figures) -> None:
    case = CASES[name]
    began = time.monotonic()
    served.create(**(cpu_spec(parallelism=ONE) | case.wrong))
    served.wait_reason("Degraded", case.reason)
    figures.seconds(f"{name}: told after", time.monotonic() - began)
    told = served.condition("Degraded")
    assert all(words in told["message"] for words in ("replica 0", *case.words))
    began = time.monotonic()
    case.mend(served)
    served.wait_served()
    figures.seconds(f"{name}: served again after it was mended", time.monotonic() - began)
    assert served.reason("Degraded") == "AsExpected"
    assert served.ask().choices


def test_missing_keys_of_a_router_are_told_in_its_own_words(
    served: Served, figures: Figures
) -> None:
    began = time.monotonic()
    router = {"replicas": 1, "apiKeysSecretName": "keys"}
    served.create(**cpu_spec(parallelism=ONE, router=router))
    served.wait_reason("Degraded", "CrashLoop")
    figures.seconds(
        "a Secret of the router that does not exist: told after", time.monotonic() - began
    )
    told = served.condition("Degraded")["message"]
    assert told.startswith(f"router {served.name}-router-")
    assert "holds no key; if a Secret is mounted there, does it exist?" in told
    secret = {"metadata": {"name": "keys"}, "stringData": {"alice": "wonderland"}}
    served.api.create(f"/api/v1/namespaces/{served.namespace}/secrets", secret)
    served.wait_served(timeout_s=400)
    assert served.reason("Degraded") == "AsExpected"


def test_router_image_that_does_not_exist_leaves_the_routers_serving(served: Served) -> None:
    served.create(**cpu_spec(parallelism=ONE))
    served.wait_served()
    before = {pod["metadata"]["uid"] for pod in served.routers()}
    served.change(router={"image": "docker.io/ascend-serving/absent:1"})
    served.wait_reason("Degraded", "ImagePullFailed")
    assert served.condition("Degraded")["message"].startswith(f"router {served.name}-router-")
    assert served.reason("Available") == "ReplicasReady"
    assert served.ask().choices
    served.change(router={"image": None})
    served.wait_served()
    assert {pod["metadata"]["uid"] for pod in served.routers()} == before
