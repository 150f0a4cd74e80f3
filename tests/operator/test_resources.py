from __future__ import annotations

from typing import Any

import pytest
from tests.operator.cluster_model import DEFAULTS, subject_of

from serving_operator.resources import router, services
from serving_operator.resources.replica import replica_pod


def engine_of(index: int = 0, **spec: Any) -> Any:
    return pod_of(index, **spec)["spec"]["containers"][0]


def pod_of(index: int = 0, **spec: Any) -> Any:
    return replica_pod(subject_of(spec), index, DEFAULTS.images)


def env_of(engine: Any) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in engine["env"]}


def router_of(**spec: Any) -> Any:
    return router.deployment(subject_of(spec), DEFAULTS.images, None)["spec"]


def test_model_in_a_claim_is_mounted_read_only() -> None:
    pod = pod_of(model={"uri": "pvc://weights/qwen/14b"})
    engine = pod["spec"]["containers"][0]
    assert env_of(engine)["MODEL_PATH"] == "/model/qwen/14b"
    claim = {"claimName": "weights", "readOnly": True}
    assert {"name": "model", "persistentVolumeClaim": claim} in pod["spec"]["volumes"]
    assert {"name": "model", "mountPath": "/model", "readOnly": True} in engine["volumeMounts"]


def test_model_of_a_hub_gets_cache_revision_and_token() -> None:
    model = {"uri": "hf://Qwen/Qwen3-14B@main", "secretName": "hub"}
    pod = pod_of(model=model)
    engine = pod["spec"]["containers"][0]
    env = env_of(engine)
    assert (env["MODEL_PATH"], env["MODEL_REVISION"]) == ("Qwen/Qwen3-14B", "main")
    assert env["HF_HOME"] == "/cache/huggingface"
    [token] = [one for one in engine["env"] if one["name"] == "HF_TOKEN"]
    assert token["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert engine["args"][0] == "hf://Qwen/Qwen3-14B@main"


def test_devices_are_asked_for_with_limit_and_request() -> None:
    pod = pod_of(parallelism={"tensorParallelSize": 4})
    resources = pod["spec"]["containers"][0]["resources"]
    assert resources["limits"] == {"huawei.com/Ascend910": "4"}
    assert resources["requests"] == {"huawei.com/Ascend910": "4", "memory": "8192Mi"}
    [shared] = [one for one in pod["spec"]["volumes"] if one["name"] == "shm"]
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "8192Mi"}
    names = env_of(pod["spec"]["containers"][0])
    assert not [name for name in names if name.endswith("VISIBLE_DEVICES")]


def test_replica_on_the_cpu_asks_for_no_device() -> None:
    engine = engine_of(devices={"resourceName": "cpu"})
    assert engine["resources"] == {"requests": {"memory": "256Mi"}}
    assert env_of(engine)["ASCEND_VISIBLE_DEVICES"] == "void"
    assert engine["image"] == "cpu:1"


@pytest.mark.parametrize(
    ("resource", "device"),
    [
        ("cpu", "cpu"),
        ("huawei.com/Ascend910", "npu"),
        ("nvidia.com/gpu", "cuda"),
        ("example.com/chip", "auto"),
    ],
)
def test_backend_follows_the_resource(resource: str, device: str) -> None:
    words = engine_of(devices={"resourceName": resource})["args"]
    assert words[words.index("--device") + 1] == device


def test_engine_args_come_last() -> None:
    assert engine_of(engine={"args": ["--device", "cpu"]})["args"][-2:] == ["--device", "cpu"]


def test_vllm_gets_its_own_words() -> None:
    engine = engine_of(
        model={"uri": "hf://Qwen/Qwen3-14B@v1"},
        engine={"kind": "VLLM", "image": "v:1", "maxModelLen": 4096, "prefixCaching": False},
        parallelism={"tensorParallelSize": 2},
    )
    assert engine["command"] == ["vllm", "serve"]
    text = " ".join(engine["args"])
    assert text.startswith("Qwen/Qwen3-14B --revision v1 --host 0.0.0.0 --port 8000")
    assert "--tensor-parallel-size 2" in text
    assert "--max-model-len 4096" in text
    assert "--no-enable-prefix-caching --shutdown-timeout 600" in text
    assert engine["readinessProbe"]["httpGet"]["path"] == "/health"
    assert engine["securityContext"]["readOnlyRootFilesystem"] is False


@pytest.mark.parametrize(("dp", "entries"), [(1, "1048576"), (2, "131072"), (8, "131072")])
def test_pypto_rings_follow_the_number_of_replicas(dp: int, entries: str) -> None:
    engine = engine_of(engine={"kind": "PyPTO"}, parallelism={"dataParallelSize": dp})
    env = env_of(engine)
    assert env["PTO2_RING_TASK_WINDOW"] == env["PTO2_RING_DEP_POOL"] == entries
    assert env["PTO2_RING_HEAP"] == "4294967296"


def test_pypto_numbers_the_devices_of_its_container() -> None:
    engine = engine_of(engine={"kind": "PyPTO"}, parallelism={"tensorParallelSize": 4})
    assert "--devices 0,1,2,3" in " ".join(engine["args"])
    assert "--dtype" not in engine["args"]


def test_custom_engine_runs_its_own_entrypoint() -> None:
    engine = engine_of(engine={"kind": "Custom", "image": "c:1", "args": ["--tp", "$(X)"]})
    assert "command" not in engine
    assert engine["args"] == ["--tp", "$(X)"]


def test_dollars_of_a_name_are_not_expanded() -> None:
    engine = engine_of(model={"uri": "/m", "servedName": "a$(HOME)"})
    assert env_of(engine)["SERVED_MODEL_NAME"] == "a$$(HOME)"
    assert "a$$(HOME)" in engine["args"]


def test_grace_covers_the_drain() -> None:
    pod = pod_of(rollout={"drainTimeoutSeconds": 100})
    assert pod["spec"]["terminationGracePeriodSeconds"] == 110
    assert "--drain-timeout 100" in " ".join(pod["spec"]["containers"][0]["args"])


def test_startup_has_a_day() -> None:
    probe = engine_of()["startupProbe"]
    assert (probe["periodSeconds"], probe["failureThreshold"]) == (1, 86_400)


def test_hub_cache_can_be_replaced_by_a_claim() -> None:
    claim = {"name": "hf-cache", "persistentVolumeClaim": {"claimName": "c"}}
    pod = pod_of(model={"uri": "hf://a/b"}, template={"spec": {"volumes": [claim]}})
    assert [one for one in pod["spec"]["volumes"] if one["name"] == "hf-cache"] == [claim]


def test_router_mounts_its_secrets_and_is_told_where() -> None:
    spec = router_of(
        router={
            "apiKeysSecretName": "keys",
            "tlsSecretName": "tls",
            "sessionAffinity": {"header": "x-s"},
        }
    )
    pod = spec["template"]["spec"]
    container = pod["containers"][0]
    words = " ".join(container["args"])
    assert "--api-keys-dir /etc/ascend-serving/api-keys" in words
    assert "--tls-cert /etc/ascend-serving/tls/tls.crt" in words
    assert "--session-affinity-header x-s --session-affinity-ttl-seconds 600" in words
    secrets = {one["name"]: one["secret"] for one in pod["volumes"] if "secret" in one}
    # A router that misses its Secret says so itself; a pod that cannot mount it only waits.
    assert secrets == {
        "api-keys": {"secretName": "keys", "optional": True},
        "tls": {"secretName": "tls", "optional": True},
    }
    assert container["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"


def test_router_of_an_open_api_has_neither() -> None:
    words = router_of()["template"]["spec"]["containers"][0]["args"]
    assert "--api-keys-dir" not in words
    assert "--tls-cert" not in words


def test_router_rolls_without_a_gap() -> None:
    spec = router_of()
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_router_keeps_whoever_scaled_it() -> None:
    made = router.deployment(subject_of({}), DEFAULTS.images, 7)
    assert made["spec"]["replicas"] == 7  # type: ignore[index]
    fixed = router.deployment(subject_of({"router": {"replicas": 3}}), DEFAULTS.images, 7)
    assert fixed["spec"]["replicas"] == 3  # type: ignore[index]


@pytest.mark.parametrize(
    ("spec", "url"),
    [
        ({}, "http://qwen.models.svc"),
        ({"service": {"port": 8080}}, "http://qwen.models.svc:8080"),
        ({"tlsSecretName": "t"}, "https://qwen.models.svc:80"),
        ({"tlsSecretName": "t", "service": {"port": 443}}, "https://qwen.models.svc"),
    ],
)
def test_url_follows_tls_and_port(spec: dict[str, Any], url: str) -> None:
    assert services.url(subject_of({"router": spec})) == url


@pytest.mark.parametrize(
    ("dp", "budget", "allowed"),
    [(4, 1, 1), (4, "50%", 2), (3, "50%", 1), (1, "50%", 1), (0, 1, 1)],
)
def test_drain_budget_is_the_rollouts_and_at_least_one(
    dp: int, budget: int | str, allowed: int
) -> None:
    subject = subject_of(
        {"parallelism": {"dataParallelSize": dp}, "rollout": {"maxUnavailable": budget}}
    )
    spec: Any = services.replica_budget(subject)["spec"]
    assert spec["maxUnavailable"] == allowed
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
