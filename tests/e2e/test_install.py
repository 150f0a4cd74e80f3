"""From nothing to the first answer, as a user would go."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest
import yaml
from tests.charts.helm import RELEASE, SYSTEM
from tests.contract.custom_resource import Kubectl
from tests.e2e.figures import Figures
from tests.e2e.installation import Installation
from tests.e2e.served import Served, cpu_spec, until
from tests.manifests.documents import MANIFESTS


def apply(kubectl: Kubectl, served: Served, spec: dict[str, Any]) -> None:
    body = {
        "apiVersion": "ascend-serving.dev/v1alpha1",
        "kind": "ServingDeployment",
        "metadata": {"name": served.name},
        "spec": spec,
    }
    kubectl("apply", "-n", served.namespace, "-f", "-", text=yaml.safe_dump(body))


def test_first_answer_after_apply(served: Served, kubectl: Kubectl, figures: Figures) -> None:
    began = time.monotonic()

    def phase(what: str) -> None:
        figures.seconds(f"from kubectl apply: {what}", time.monotonic() - began)

    apply(kubectl, served, cpu_spec(parallelism={"dataParallelSize": 1}))
    phase("kubectl is back")
    until(lambda: served.pods(), "the replica's pod is made")
    phase("the replica's pod is made")
    until(lambda: served.pod(0)["status"].get("podIP"), "it has an address")
    phase("it has an address")
    until(lambda: served.status().get("readyReplicas") == 1, "it is ready")
    phase("it is ready")
    until(served.ask, "it answers")
    phase("first answer")


def test_two_replicas_answer_through_the_service(
    served: Served, kubectl: Kubectl, figures: Figures
) -> None:
    began = time.monotonic()
    apply(kubectl, served, cpu_spec())
    kubectl(
        "wait", "-n", served.namespace, "--for=condition=Available", f"sdep/{served.name}",
        "--timeout=3m",
    )  # fmt: skip
    figures.seconds("from kubectl apply to Available, 2 replicas", time.monotonic() - began)
    served.wait_served()
    with served.client() as client:
        chat = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Hello"}], max_tokens=8
        )
        assert chat.choices[0].message.role == "assistant"
        assert [model.id for model in client.models.list()] == ["tiny"]
    answered = {served_by(served, client_number) for client_number in range(8)}
    assert answered == {f"{served.name}-0", f"{served.name}-1"}


def served_by(served: Served, number: int) -> str:
    with served.client() as client:
        raw = client.completions.with_raw_response.create(
            model="tiny", prompt=f"number {number}", max_tokens=4
        )
        return raw.headers["x-ascend-serving-replica"]


def test_api_keys_and_wrong_ones(served: Served) -> None:
    secret = {"metadata": {"name": "keys"}, "stringData": {"alice": "wonderland\n"}}
    served.api.create(f"/api/v1/namespaces/{served.namespace}/secrets", secret)
    one = {"dataParallelSize": 1}
    served.create(**cpu_spec(parallelism=one, router={"apiKeysSecretName": "keys"}))
    served.wait_served()
    with served.client() as stranger, pytest.raises(openai.AuthenticationError) as refused:
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="wonderland") as alice:
        assert [model.id for model in alice.models.list()] == ["tiny"]


def test_sample_of_the_readme_serves(served: Served, kubectl: Kubectl) -> None:
    sample = MANIFESTS / "samples" / "cpu-trial.yaml"
    kubectl("apply", "-n", served.namespace, "-f", sample)
    trial = Served(served.api, served.namespace, "trial")
    trial.wait_served()
    assert trial.ask().choices


def test_helm_test_sends_one_request(
    served: Served, installation: Installation, kubectl: Kubectl
) -> None:
    apply(kubectl, served, cpu_spec(parallelism={"dataParallelSize": 1}))
    served.wait_served()
    installation.upgrade(
        "--set",
        f"test.servingDeployment={served.name}",
        "--set",
        f"test.namespace={served.namespace}",
    )
    assert "Phase:          Succeeded" in installation.run("test", RELEASE, "--timeout", "2m")


def test_logs_of_all_pods_are_clean(
    served: Served, kubectl: Kubectl, installation: Installation
) -> None:
    served.create(**cpu_spec(parallelism={"dataParallelSize": 1}))
    served.wait_served()
    for pod in (*served.pods(), *served.routers()):
        log = kubectl("logs", "-n", served.namespace, pod["metadata"]["name"])
        assert "Traceback" not in log
    operators = installation.operators()
    assert len(operators) == 2
    for pod in operators:
        log = kubectl("logs", "-n", SYSTEM, pod["metadata"]["name"])
        assert log
        assert "Traceback" not in log


def test_uninstalling_keeps_what_serves(
    served: Served, installation: Installation, kubectl: Kubectl
) -> None:
    served.create(**cpu_spec(parallelism={"dataParallelSize": 1}))
    served.wait_served()
    before = served.uids()
    installation.uninstall()
    try:
        assert served.ask().choices
        assert served.uids() == before
    finally:
        installation.reinstall()
    served.wait_served()
    assert served.uids() == before
