"""Discovery against a real API server, with the rights that a router pod has."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from tests.cluster.api import Api
from tests.cluster.audit import Audit, Entry
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fixtures import OwnControlPlane
from tests.cluster.kubelet import Kubelet
from tests.cluster.tcp_proxy import TcpProxy
from tests.router.api_server import Follower
from tests.router.published import SERVICE, PublishedService
from tests.router.slices import LEAVING, LOADING, endpoint

from serving_router.api_access import AccessSource, InCluster
from serving_router.cluster_discovery import ClusterDiscovery
from serving_router.kubeconfig import Kubeconfig
from serving_router.outage import Outage
from serving_router.slices_api import WATCH_SILENCE_S, SlicesApi

Follow = Callable[..., Follower]


@pytest.fixture
def service(control_plane: Cluster, namespace: str) -> PublishedService:
    return PublishedService(control_plane, namespace)


@pytest.fixture
def proxy(control_plane: Cluster) -> Iterator[TcpProxy]:
    if not isinstance(control_plane, ControlPlane):
        pytest.skip("a network that fails needs a control plane on this machine")
    with TcpProxy(control_plane.port) as proxy:
        yield proxy


@pytest.fixture
async def follow() -> AsyncIterator[Follow]:
    """Follow a Service with pauses of 50 ms."""
    followers: list[Follower] = []

    def start(
        service: PublishedService,
        access: AccessSource | None = None,
        *,
        silence_s: float = WATCH_SILENCE_S,
    ) -> Follower:
        slices = SlicesApi(
            access or Kubeconfig(service.kubeconfig()),
            namespace=service.namespace,
            service=SERVICE,
            silence_s=silence_s,
        )
        discovery = ClusterDiscovery(slices, Outage(uniform=lambda low, high: 0.05))
        followers.append(Follower(discovery.watch()))
        return followers[-1]

    yield start
    for follower in followers:
        await follower.stop()


A, B = endpoint("10.0.0.1", "m-0"), endpoint("10.0.0.2", "m-1")


async def test_changes_arrive_as_they_happen(service: PublishedService, follow: Follow) -> None:
    follower = follow(service)
    await follower.until(lambda: follower.pods == [])
    service.publish("s", A)
    service.publish("t", endpoint("10.0.0.2", "m-1", None, LOADING))
    await follower.until_pods("m-0", "m-1")
    assert [replica.ready for replica in follower.sets[-1]] == [True, False]
    service.publish("s", endpoint("10.0.0.1", "m-0", None, LEAVING))
    await follower.until(lambda: follower.sets[-1][0].terminating)
    service.withdraw("s")
    await follower.until_pods("m-1")


async def test_other_services_are_not_ours(service: PublishedService, follow: Follow) -> None:
    service.publish("s", A)
    service.publish("other", B, service="another")
    follower = follow(service)
    await follower.until_pods("m-0")
    service.publish("other", endpoint("10.0.0.3", "m-3"), service="another")
    service.publish("t", endpoint("10.0.0.4", "m-4"))
    await follower.until_pods("m-0", "m-4")
    assert all("m-3" not in str(replicas) for replicas in follower.sets)


async def test_ipv6_is_found(service: PublishedService, follow: Follow) -> None:
    service.publish("s", endpoint("fd00:1::1", "m-0"), family="IPv6")
    follower = follow(service)
    await follower.until_pods("m-0")
    assert follower.sets[-1][0].url == "http://[fd00:1::1]:8000"


async def test_only_rights_to_endpoint_slices_are_used(
    service: PublishedService, follow: Follow, audit: Audit
) -> None:
    since = audit.mark()
    follower = follow(service)
    await follower.until_pods()
    service.publish("s", A)
    await follower.until_pods("m-0")
    await follower.stop()
    entries = await ended(audit, service, since)
    assert {(entry.verb, entry.resource, entry.code) for entry in entries} == {
        ("list", "endpointslices", 200),
        ("watch", "endpointslices", 200),
    }


async def ended(audit: Audit, service: PublishedService, since: int) -> list[Entry]:
    """Return the router's requests once a watch is in the log, which is when it has ended."""

    def entries() -> list[Entry]:
        found = audit.entries(user=service.user, since=since)
        return found if any(entry.verb == "watch" for entry in found) else []

    return await asyncio.to_thread(service.api.wait, entries, "the watch in the audit log")


@pytest.fixture
def mounted(control_plane: Cluster, service: PublishedService, tmp_path: Path) -> Path:
    """A ServiceAccount's folder as a pod has it."""
    (tmp_path / "ca.crt").write_text(control_plane.ca)
    (tmp_path / "namespace").write_text(service.namespace)
    (tmp_path / "token").write_text(service.token() + "\n")
    return tmp_path


OUTDATED = {
    "token": ("token", "outdated", "answered 401"),
    "authority": ("ca.crt", trustme.CA().cert_pem.bytes().decode(), "certificate verify failed"),
}


@pytest.mark.parametrize(("file", "content", "line"), OUTDATED.values(), ids=OUTDATED.keys())
async def test_pods_own_credentials_are_read_again_when_they_change(
    service: PublishedService,
    follow: Follow,
    mounted: Path,
    caplog: pytest.LogCaptureFixture,
    file: str,
    content: str,
    line: str,
) -> None:
    address = urlsplit(service.cluster.url)
    environment = {
        "KUBERNETES_SERVICE_HOST": str(address.hostname),
        "KUBERNETES_SERVICE_PORT": str(address.port),
    }
    access = InCluster(environment, mounted)
    assert access.namespace == service.namespace
    valid = (mounted / file).read_text()
    (mounted / file).write_text(content)
    service.publish("s", A)
    follower = follow(service, access)
    await is_logged(caplog, line)
    (mounted / file).write_text(valid)
    await follower.until_pods("m-0")


async def test_right_that_is_taken_away_leaves_what_is_known(
    service: PublishedService,
    proxy: TcpProxy,
    follow: Follow,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service.publish("s", A)
    follower = follow(service, Kubeconfig(service.kubeconfig(server=proxy.url)))
    await follower.until_pods("m-0")
    service.forbid()
    service.withdraw("s")
    proxy.cut()
    await is_logged(caplog, "needs get, list and watch on endpointslices")
    assert "ERROR" in {record.levelname for record in caplog.records}
    assert 'cannot watch resource "endpointslices" in API group "discovery.k8s.io"' in caplog.text
    assert follower.pods == ["m-0"]
    service.allow()
    await follower.until_pods()


async def test_connection_that_is_cut_goes_on_without_a_list(
    service: PublishedService, proxy: TcpProxy, follow: Follow, audit: Audit
) -> None:
    since = audit.mark()
    service.publish("s", A)
    follower = follow(service, Kubeconfig(service.kubeconfig(server=proxy.url)))
    await follower.until_pods("m-0")
    proxy.refuse()
    proxy.cut()
    service.publish("t", B)
    service.withdraw("s")
    proxy.accept()
    await follower.until_pods("m-1")
    entries = audit.entries(user=service.user, since=since)
    assert [entry.verb for entry in entries].count("list") == 1


async def test_network_that_freezes_is_noticed_by_silence(
    service: PublishedService,
    proxy: TcpProxy,
    follow: Follow,
    caplog: pytest.LogCaptureFixture,
) -> None:
    access = Kubeconfig(service.kubeconfig(server=proxy.url))
    with caplog.at_level(logging.DEBUG, "serving_router.outage"):
        follower = follow(service, access, silence_s=1.0)
        await follower.until_pods()
        service.publish("s", A)
        await follower.until_pods("m-0")
        proxy.freeze()
        service.publish("t", B)
        service.withdraw("s")
        await is_logged(caplog, "the watch brought nothing for 1 s")
    assert follower.pods == ["m-0"]
    proxy.thaw()
    await follower.until_pods("m-1")


async def is_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(60):
        while text not in caplog.text:  # noqa: ASYNC110 - a log line has no event
            await asyncio.sleep(0.01)


async def test_compacted_history_means_a_list_that_drops_what_vanished(
    own_control_plane: OwnControlPlane, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    own = await asyncio.to_thread(own_control_plane, watch_cache=False)
    service = PublishedService(own, "default")
    service.publish("s", A)
    with TcpProxy(own.port) as proxy:
        follower = follow(service, Kubeconfig(service.kubeconfig(server=proxy.url)))
        await follower.until_pods("m-0")
        proxy.refuse()
        proxy.cut()
        service.publish("t", B)
        service.withdraw("s")
        own.raise_revision()
        own.compact()
        with caplog.at_level(logging.INFO, "serving_router.outage"):
            proxy.accept()
            await follower.until_pods("m-1")
        assert "410" in caplog.text
        assert all(follower.sets)


async def test_api_server_that_dies_and_comes_back_is_followed_on(
    own_control_plane: OwnControlPlane, follow: Follow
) -> None:
    own = await asyncio.to_thread(own_control_plane)
    service = PublishedService(own, "default")
    service.publish("s", A)
    follower = follow(service)
    await follower.until_pods("m-0")
    own.kill_apiserver()
    own.raise_revision()
    await asyncio.to_thread(own.start_apiserver)
    service.publish("t", B)
    service.withdraw("s")
    await follower.until_pods("m-1")
    assert all(follower.sets)


@pytest.fixture
def kubelet(api: Api, controllers: None) -> Iterator[Kubelet]:
    with Kubelet(api, nodes=["discovery-test"]) as kubelet:
        yield kubelet


async def test_life_of_a_pod_is_followed_as_the_controllers_write_it(
    control_plane: Cluster, namespace: str, kubelet: Kubelet, follow: Follow
) -> None:
    service = PublishedService(control_plane, namespace, selector={"app": "m"})
    pods = f"/api/v1/namespaces/{namespace}/pods"
    kubelet.hold(lambda pod: bool(pod["metadata"]["namespace"] == namespace))
    kubelet.grace_s = 1000
    uid = service.run_pod("m-0", node="discovery-test")["metadata"]["uid"]
    follower = follow(service)
    await follower.until_pods("m-0")
    loading = follower.sets[-1][0]
    assert (loading.uid, loading.ready, loading.serving) == (uid, False, False)
    kubelet.set_ready(namespace, "m-0", True)
    await follower.until(lambda: follower.sets[-1][0].ready)
    service.api.delete(f"{pods}/m-0")
    await follower.until(lambda: follower.sets[-1][0].terminating)
    leaving = follower.sets[-1][0]
    assert (leaving.url, leaving.ready, leaving.serving) == (loading.url, False, True)
    kubelet.grace_s = 0
    await follower.until_pods()
