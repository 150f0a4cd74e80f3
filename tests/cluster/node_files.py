"""The files by which a node's containerd, CNI plugins and kubelet are told what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tests.cluster.bridge import HOST, Place
from tests.cluster.static_images import PAUSE, image_name

CNI_PROGRAMS: Final = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))


def write_containerd_config(folder: Path, registry_url: str) -> Path:
    """Write containerd's configuration for a node whose files are in `folder`.

    It asks at `registry_url` for every image that it does not have.
    """
    registry = folder / "registries" / "_default"
    registry.mkdir(parents=True, exist_ok=True)
    (registry / "hosts.toml").write_text(
        # containerd 1.6 reads no file without a table of hosts.
        f'server = "{registry_url}"\n[host."{registry_url}"]\ncapabilities = ["pull", "resolve"]\n'
    )
    programs = next(path for path in CNI_PROGRAMS if path.exists())
    path = folder / "containerd.toml"
    path.write_text(f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image_name(PAUSE)}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{registry.parent}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{programs}"
    conf_dir = "{folder / "cni"}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
""")
    return path


def write_import_config(folder: Path) -> Path:
    """Write the configuration of a containerd that only imports images, into `folder`."""
    path = folder / "containerd.toml"
    path.write_text(f"""\
version = 2
root = "{folder / "root"}"
state = "{folder / "state"}"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{folder / "sock"}"
""")
    return path


def write_pod_network(folder: Path, place: Place) -> None:
    """Write the CNI plugins' configuration.

    Plugin `ptp` and not `bridge`: every packet is routed, so that Services work without
    br_netfilter, and a pod reaches itself through its Service.
    """
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": place.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins: list[dict[str, object]] = [
        {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": addresses},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    content = {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}
    (folder / "cni").mkdir(exist_ok=True)
    (folder / "cni" / "10-pods.conflist").write_text(json.dumps(content))


def write_kubelet_config(folder: Path, *, client_ca: Path, group: str) -> Path:
    """Write the kubelet's configuration; its pods' control groups are below `group`."""
    content = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(client_ca)},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{group}",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [HOST],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "failSwapOn": False,
        "evictionHard": {
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "memory.available": "100Mi",
        },
        "imageGCHighThresholdPercent": 100,
        # A lost node is noticed within a test's patience.
        "nodeStatusUpdateFrequency": "2s",
        "nodeStatusReportFrequency": "2s",
        "nodeLeaseDurationSeconds": 8,
        "syncFrequency": "5s",
        "featureGates": {"ResourceHealthStatus": True},
    }
    path = folder / "kubelet.json"
    path.write_text(json.dumps(content))  # JSON is YAML
    return path
