"""The command lines of the control plane's components, and why each flag is there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.certificates import Certificates
from tests.cluster.ports import free_port
from tests.cluster.tokens import Tokens

LOOPBACK: Final = "127.0.0.1"
SERVICES: Final = "10.98.0.0/16"
_AUDIT_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {
            "level": "None",
            "nonResourceURLs": ["/healthz*", "/readyz*", "/livez*", "/version", "/openapi*"],
        },
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the parts of one control plane are: its folder, its address and its ports.

    Only the API server is at `address`, the rest at 127.0.0.1.
    """

    folder: Path
    address: str
    etcd: int
    etcd_peers: int
    apiserver: int
    controllers: int
    scheduler: int

    @classmethod
    def in_folder(cls, folder: Path, address: str = LOOPBACK) -> Layout:
        """Return a layout on ports that are free now."""
        ports = {free_port() for _ in range(5)}
        while len(ports) < 5:
            ports.add(free_port())
        etcd, etcd_peers, apiserver, controllers, scheduler = ports
        return cls(
            folder=folder,
            address=address,
            etcd=etcd,
            etcd_peers=etcd_peers,
            apiserver=apiserver,
            controllers=controllers,
            scheduler=scheduler,
        )

    @property
    def url(self) -> str:
        host = "localhost" if self.address == LOOPBACK else self.address
        return f"https://{host}:{self.apiserver}"

    @property
    def etcd_url(self) -> str:
        return f"https://127.0.0.1:{self.etcd}"

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.json"


def etcd(layout: Layout, certificates: Certificates) -> list[str]:
    """Return etcd's flags; it speaks only with who has a certificate of ours."""
    peers = f"https://127.0.0.1:{layout.etcd_peers}"
    return [
        f"--data-dir={layout.folder / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={layout.etcd_url}",
        f"--advertise-client-urls={layout.etcd_url}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        *(flag for side in ("", "peer-") for flag in _certified(side, certificates)),
    ]


def _certified(side: str, certificates: Certificates) -> list[str]:
    return [
        f"--{side}client-cert-auth",
        f"--{side}trusted-ca-file={certificates.ca}",
        f"--{side}cert-file={certificates.server}",
        f"--{side}key-file={certificates.server_key}",
    ]


def apiserver(
    layout: Layout, certificates: Certificates, tokens: Tokens, *, watch_cache: bool
) -> list[str]:
    """Return the API server's flags; writes the files that they name."""
    policy = layout.folder / "audit-policy.json"
    policy.write_text(json.dumps(_AUDIT_POLICY))
    return [
        f"--etcd-servers={layout.etcd_url}",
        f"--etcd-cafile={certificates.ca}",
        f"--etcd-certfile={certificates.server}",
        f"--etcd-keyfile={certificates.server_key}",
        f"--bind-address={layout.address}",
        f"--advertise-address={layout.address}",
        *_reaching(layout, certificates),
        f"--secure-port={layout.apiserver}",
        f"--tls-cert-file={certificates.server}",
        f"--tls-private-key-file={certificates.server_key}",
        f"--client-ca-file={certificates.ca}",
        f"--token-auth-file={tokens.write(layout.folder / 'tokens.csv')}",
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={certificates.service_accounts_key}",
        f"--service-account-signing-key-file={certificates.service_accounts_key}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={layout.audit_log}",
        "--audit-log-maxsize=4096",  # never rotated: readers hold a place in it
        "--etcd-compaction-interval=0",
        f"--watch-cache={str(watch_cache).lower()}",
        "--profiling=false",
        "--default-not-ready-toleration-seconds=30",
        "--default-unreachable-toleration-seconds=30",
        "--feature-gates=ResourceHealthStatus=true",
    ]


def _reaching(layout: Layout, certificates: Certificates) -> list[str]:
    """Return the flags by which API server, kubelets and pods reach each other, or do not."""
    if layout.address == LOOPBACK:
        # Nothing reaches the Service `kubernetes` here, and loopback is no address for one.
        return ["--endpoint-reconciler-type=none"]
    return [
        "--allow-privileged",
        "--enable-admission-plugins=NodeRestriction",
        f"--kubelet-client-certificate={certificates.kubelet_client}",
        f"--kubelet-client-key={certificates.kubelet_client_key}",
        # A node's name is in no DNS.
        "--kubelet-preferred-address-types=InternalIP",
    ]


def controller_manager(layout: Layout, certificates: Certificates, kubeconfig: Path) -> list[str]:
    """Return the controller manager's flags."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--service-account-private-key-file={certificates.service_accounts_key}",
        f"--root-ca-file={certificates.ca}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={layout.controllers}",
        f"--cert-dir={layout.folder / 'controllers'}",
        # With the usual 20 a second the first service account comes 5 s later.
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        # A lost node is noticed within a test's patience, and its pods are evicted at once.
        "--node-monitor-period=1s",
        "--node-monitor-grace-period=10s",
        "--node-eviction-rate=100",
        "--secondary-node-eviction-rate=100",
        "--unhealthy-zone-threshold=1",
    ]


def scheduler(layout: Layout, kubeconfig: Path) -> list[str]:
    """Return the scheduler's flags."""
    return [
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={layout.scheduler}",
        f"--cert-dir={layout.folder / 'scheduler'}",
    ]
