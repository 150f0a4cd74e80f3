"""The operator with 200 ServingDeployments of 8 replicas on a real API server.

Bars: ready in 30 s, 200 MB, 0.05 core idle without a write, 1 s from a change to the first write.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from tests.bench.processes import cpu_seconds, free_port, rss_mib
from tests.cluster.api import Api
from tests.cluster.audit import Audit
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubelet import Kubelet
from tests.operator.operator_process import OperatorProcess, deployment, grant

DEPLOYMENTS = int(os.environ.get("BENCH_DEPLOYMENTS", "200"))
REPLICAS = 8
CHANGES = 60
IDLE_S = float(os.environ.get("BENCH_IDLE_S", "600"))
RESYNC_S = 5.0
NAMESPACE = "bench"
PATH = f"/apis/ascend-serving.dev/v1alpha1/namespaces/{NAMESPACE}/servingdeployments"
WRITES = {"create", "update", "patch", "delete"}


def run() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        cluster = stack.enter_context(ControlPlane.start(Path(folder) / "cluster"))
        api = cluster.api
        audit = Audit(api, cluster.audit_log)
        nodes = [f"bench-{number}" for number in range(DEPLOYMENTS // 10 + 4)]
        stack.enter_context(Kubelet(api, nodes=nodes))
        api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        grant(api, NAMESPACE)
        operator = OperatorProcess(cluster, NAMESPACE, Path(folder) / "log")
        _fill(api, operator)
        _start(audit, operator)
        _idle(audit, operator.process.pid, operator.user, "operator")
        _changes(api, audit, operator.user, operator.process.pid, "operator", 1)
        operator.stop()
        quick = OperatorProcess(cluster, NAMESPACE, Path(folder) / "log", resync_s=RESYNC_S)
        quick.start().wait_ready()
        try:
            _long_idle(api, audit, quick)
        finally:
            quick.stop()
        _plain_kopf(cluster, api, audit, Path(folder))


def _fill(api: Api, operator: OperatorProcess) -> None:
    """Have everything created while the operator runs."""
    operator.start().wait_ready()
    began_at = time.monotonic()
    spec = {"parallelism": {"dataParallelSize": REPLICAS}, "router": {"replicas": 1}}
    with ThreadPoolExecutor(8) as pool:
        bodies = [deployment(f"d{number}", **spec) for number in range(DEPLOYMENTS)]
        list(pool.map(lambda body: api.create(PATH, body), bodies))
    api.wait(lambda: _all_complete(api), "everything complete", 900)
    took_s = time.monotonic() - began_at
    pods = len(api.list(f"/api/v1/namespaces/{NAMESPACE}/pods"))
    print(f"{DEPLOYMENTS} ServingDeployments, {pods} pods, complete in {took_s:.0f} s", flush=True)
    operator.stop()


def _all_complete(api: Api) -> bool:
    time.sleep(1)
    wanted = f"{REPLICAS}/{REPLICAS}"
    items = api.list(PATH)
    return all(item.get("status", {}).get("ready") == wanted for item in items) and all(
        any(
            one["type"] == "Available" and one["status"] == "True"
            for one in item["status"]["conditions"]
        )
        for item in items
    )


def _start(audit: Audit, operator: OperatorProcess) -> None:
    since = audit.mark()
    began_at = time.monotonic()
    operator.start().wait_ready()
    ready_s = time.monotonic() - began_at
    while not operator.is_leader:
        time.sleep(0.05)
    time.sleep(5)
    entries = audit.entries(user=operator.user, since=since)
    lists = Counter(e.resource for e in entries if e.verb == "list" and "continue=" not in e.uri)
    pages = sum(e.verb == "list" for e in entries)
    writes = [e for e in entries if e.verb in WRITES and e.resource != "leases"]
    print(f"start: ready in {ready_s:.1f} s, {rss_mib(operator.process.pid):.0f} MiB")
    print(f"start: at most {max(lists.values())} LIST a kind ({pages} pages), {len(writes)} writes")


def _idle(audit: Audit, pid: int, user: str, who: str, seconds: float = 60.0) -> None:
    time.sleep(10)
    since, before = audit.mark(), cpu_seconds(pid)
    time.sleep(seconds)
    share = (cpu_seconds(pid) - before) / seconds
    entries = audit.entries(user=user, since=since)
    writes = [e for e in entries if e.verb in WRITES and e.resource != "leases"]
    reads = [e for e in entries if e.verb in {"get", "list"} and e.resource != "leases"]
    print(
        f"{who}: idle {seconds:.0f} s: {share:.2%} of a core, {rss_mib(pid):.0f} MiB, "
        f"{len(writes)} writes, {len(reads)} reads beside the Lease",
        flush=True,
    )


def _long_idle(api: Api, audit: Audit, operator: OperatorProcess) -> None:
    """Resync every 5 s and see that nothing is written."""
    time.sleep(10)
    versions = {
        item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in api.list(PATH)
    }
    since = audit.mark()
    time.sleep(IDLE_S)
    entries = audit.entries(user=operator.user, since=since)
    writes = [e for e in entries if e.verb in WRITES and e.resource != "leases"]
    lists = sum(e.verb == "list" and e.resource == "servingdeployments" for e in entries)
    after = {
        item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in api.list(PATH)
    }
    same = versions == after
    print(
        f"operator: {IDLE_S:.0f} s with a resync every {RESYNC_S:g} s ({lists} resyncs): "
        f"{len(writes)} writes, resourceVersions {'constant' if same else 'CHANGED'}",
        flush=True,
    )


def _changes(api: Api, audit: Audit, user: str, pid: int, who: str, seconds: int) -> None:
    """Change one spec after another; how long until the first write about it."""
    since = audit.mark()
    changed_at: dict[str, float] = {}
    for number in range(min(CHANGES, DEPLOYMENTS)):
        name = f"d{number}"
        spec = {
            "rollout": {"minReadySeconds": seconds},
            "router": {"maxPendingTokensPerReplica": 1000 + seconds},
        }
        api.patch(f"{PATH}/{name}", {"spec": spec})
        changed_at[name] = time.time()
        time.sleep(0.2)
    time.sleep(5)
    first: dict[str, float] = {}
    for entry in audit.entries(user=user, since=since):
        if entry.verb in WRITES and entry.resource != "leases":
            first.setdefault(
                entry.name.removesuffix("-router"), datetime.fromisoformat(entry.time).timestamp()
            )
    delays = sorted(first[name] - at for name, at in changed_at.items() if name in first)
    missed = len(changed_at) - len(delays)
    p95 = delays[int(0.95 * (len(delays) - 1))]
    print(
        f"{who}: change to first write: median {statistics.median(delays) * 1000:.0f} ms, "
        f"p95 {p95 * 1000:.0f} ms, missed {missed}, {rss_mib(pid):.0f} MiB",
        flush=True,
    )


def _plain_kopf(cluster: ControlPlane, api: Api, audit: Audit, folder: Path) -> None:
    """Run the contender as an administrator: it needs to write the objects themselves."""
    account = {"metadata": {"name": "plain", "namespace": NAMESPACE}}
    api.create(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", account)
    binding = {
        "metadata": {"name": "plain"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "cluster-admin",
        },
        "subjects": [{"kind": "ServiceAccount", "name": "plain", "namespace": NAMESPACE}],
    }
    api.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    token = cluster.service_account_token(NAMESPACE, "plain")
    user = f"system:serviceaccount:{NAMESPACE}:plain"
    since = audit.mark()
    with _process(str(cluster.kubeconfig_for(token)), folder) as pid:
        time.sleep(30)
        writes = [e for e in audit.entries(user=user, since=since) if e.verb in WRITES]
        print(f"plain kopf: {len(writes)} writes at its start, {rss_mib(pid):.0f} MiB", flush=True)
        _idle(audit, pid, user, "plain kopf")
        _changes(api, audit, user, pid, "plain kopf", 2)


@contextmanager
def _process(kubeconfig: str, folder: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "tests.bench.plain_kopf", str(free_port())]
    with (folder / "plain.log").open("w") as log:
        process = subprocess.Popen(
            command, env=os.environ | {"KUBECONFIG": kubeconfig}, stdout=log, stderr=log
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)
