from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving_cli.deployment_file import cluster_only, flags_of, read_deployment
from serving_cli.errors import UsageError

Cli = Callable[..., tuple[int, str, str]]

HEAD = """
apiVersion: ascend-serving.dev/v1alpha1
kind: ServingDeployment
metadata: {name: qwen}
spec:
  devices: {resourceName: cpu}
"""


def _items(text: str) -> list[Any]:
    items: list[Any] = json.loads(text)["items"]
    return items


@pytest.fixture
def deployment_file(tmp_path: Path) -> Callable[[str], Path]:
    def write(rest: str) -> Path:
        file = tmp_path / "qwen.yaml"
        file.write_text(HEAD + rest)
        return file

    return write


def test_file_fills_what_flags_fill(deployment_file: Callable[[str], Path]) -> None:
    file = deployment_file(
        """
  model: {uri: /models/qwen, servedName: q}
  parallelism: {dataParallelSize: 2}
  engine: {maxNumSeqs: 4, maxModelLen: 512, deviceMemoryFraction: "0.5", dtype: float32}
  router: {policy: RoundRobin, maxPendingTokensPerReplica: 9, sessionAffinity: {header: x-s}}
"""
    )
    assert flags_of(read_deployment(file)) == {
        "model": "/models/qwen",
        "served_name": "q",
        "dp": 2,
        "tp": 1,
        "device": "cpu",
        "dtype": "float32",
        "max_model_len": 512,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 8192,
        "device_memory_fraction": 0.5,
        "policy": "RoundRobin",
        "max_pending_tokens_per_replica": 9,
        "session_affinity_header": "x-s",
        "session_affinity_ttl_seconds": 600,
    }


def test_engine_args_come_last_and_win(deployment_file: Callable[[str], Path]) -> None:
    file = deployment_file(
        """
  model: {uri: /m}
  engine: {maxNumSeqs: 4, args: [--max-num-seqs, "8"]}
"""
    )
    assert flags_of(read_deployment(file))["max_num_seqs"] == 8


@pytest.mark.parametrize(
    ("rest", "complaint"),
    [
        ("  model: {uri: pvc://weights}", "model.uri pvc://weights: no volumes here"),
        ("  model: {uri: /m}\n  engine: {kind: VLLM}", "engine.kind VLLM"),
        ("  model: {uri: /m}\n  parallelism: {dataParallelSize: 0}", "nothing to serve"),
        ("  model: {uri: /m}\n  router: {apiKeysSecretName: s}", "router.apiKeysSecretName s"),
        ("  model: {uri: /m}\n  router: {tlsSecretName: s}", "router.tlsSecretName s"),
        ("  model: {uri: hf://a/b, secretName: s}", "model.secretName s: no Secrets here"),
    ],
    ids=["volume", "another engine", "zero", "keys", "certificate", "token"],
)
def test_what_only_a_cluster_has_is_refused(
    deployment_file: Callable[[str], Path], rest: str, complaint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        flags_of(read_deployment(deployment_file(rest)))
    assert complaint in str(caught.value)


def test_devices_that_are_not_here_are_refused_with_the_cure(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "npu.yaml"
    file.write_text(HEAD.replace("  devices: {resourceName: cpu}\n", "") + "  model: {uri: /m}")
    code, _, err = cli("serve", "-f", file)
    assert code == 2
    assert err == (
        "ascend-serving serve: devices.resourceName huawei.com/Ascend910: "
        "none on this machine; set it to cpu\n"
    )


def test_fields_for_a_cluster_are_named(deployment_file: Callable[[str], Path]) -> None:
    file = deployment_file(
        """
  model: {uri: /m}
  engine: {image: i}
  template: {spec: {}}
  rollout: {maxSurge: 1}
  router: {replicas: 3, service: {port: 8080}}
"""
    )
    spec = read_deployment(file).spec
    fields = ["engine.image", "template", "router.replicas", "router.service", "rollout"]
    assert cluster_only(spec) == fields


def test_smallest_file_names_nothing(deployment_file: Callable[[str], Path]) -> None:
    assert cluster_only(read_deployment(deployment_file("  model: {uri: /m}")).spec) == []


def test_flag_that_the_file_replaces_is_refused(
    cli: Cli, deployment_file: Callable[[str], Path]
) -> None:
    code, _, err = cli("serve", "-f", deployment_file("  model: {uri: /m}"), "--dp", "2")
    assert code == 2
    assert "--dp and -f exclude each other" in err


def test_missing_file_is_named(cli: Cli) -> None:
    code, _, err = cli("plan", "-f", "/no/such.yaml")
    assert (code, err) == (
        2,
        "ascend-serving plan: /no/such.yaml cannot be read: No such file or directory\n",
    )


def test_plan_shows_the_device_groups(cli: Cli, deployment_file: Callable[[str], Path]) -> None:
    file = deployment_file(
        "  model: {uri: /m}\n  parallelism: {dataParallelSize: 2, tensorParallelSize: 2}"
    )
    code, out, _ = cli("plan", "-f", file, "--devices", "4-7")
    assert code == 0
    assert out.split("\n\n")[0].splitlines() == [
        "qwen: model /m, 2 x 2 devices of cpu",
        "REPLICA  POD     DEVICES",
        "0        qwen-0  4,5",
        "1        qwen-1  6,7",
    ]


def test_plan_of_zero_replicas_says_so(cli: Cli, deployment_file: Callable[[str], Path]) -> None:
    file = deployment_file("  model: {uri: /m}\n  parallelism: {dataParallelSize: 0}")
    shown = cli("plan", "-f", file)[1]
    assert shown.startswith("qwen: model /m, 0 x 1 devices of cpu (scaled to zero)\n")
    assert "Pod " not in shown


@pytest.mark.parametrize(("form", "read"), [("yaml", yaml.safe_load_all), ("json", _items)])
def test_plan_prints_every_object(
    cli: Cli,
    deployment_file: Callable[[str], Path],
    form: str,
    read: Callable[[str], Iterable[Any]],
) -> None:
    file = deployment_file("  model: {uri: /m}\n  parallelism: {dataParallelSize: 2}")
    code, out, _ = cli("plan", "-f", file, "-o", form, "--router-image", "mine:1")
    assert code == 0
    objects = [(body["kind"], body["metadata"]["name"]) for body in read(out)]
    assert objects[-2:] == [("Pod", "qwen-0"), ("Pod", "qwen-1")]
    assert ("Deployment", "qwen-router") in objects
    assert "mine:1" in out


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("template: {spec: {nodeName: a}}", " template.spec.nodeName"),
        ("router: {template: {spec: {nodeName: a}}}", " router.template.spec.nodeName"),
    ],
    ids=["of the replicas", "of the routers"],
)
def test_plan_names_the_path_of_a_wrong_template(
    cli: Cli, deployment_file: Callable[[str], Path], spec: str, path: str
) -> None:
    file = deployment_file(f"  model: {{uri: /m}}\n  {spec}")
    code, _, err = cli("plan", "-f", file)
    assert code == 2
    assert f"{path}: is the operator's" in err


def test_plan_refuses_devices_that_do_not_fit(
    cli: Cli, deployment_file: Callable[[str], Path]
) -> None:
    code, _, err = cli("plan", "-f", deployment_file("  model: {uri: /m}"), "--devices", "0,1")
    assert (code, err) == (
        2,
        "ascend-serving plan: --devices names 2 devices, but --dp 1 x --tp 1 needs 1\n",
    )
