"""However a cluster with real nodes ends, the machine is as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cluster.binary import cache_folder
from tests.cluster.bridge import HOST, NETWORKS, PREFIX, ip
from tests.cluster.cgroups import group_names
from tests.cluster.errors import ClusterUnavailable
from tests.cluster.leftovers import SETTINGS
from tests.cluster.nodes import missing_for_nodes
from tests.cluster.real_cluster import RealCluster
from tests.cluster.tenancy import RECORD, Tenancy

ROOT = Path(__file__).parents[2]
START_AND_WAIT = """
import sys, time
from pathlib import Path
from tests.cluster.real_cluster import RealCluster
started = RealCluster.start(Path(sys.argv[1]))
print("up", flush=True)
time.sleep(600)
"""

pytestmark = pytest.mark.skipif(missing_for_nodes() is not None, reason=str(missing_for_nodes()))


def traces() -> dict[str, object]:
    """Return everything by which a cluster could be noticed."""
    disks = cache_folder(os.environ) / "nodes"
    rules = subprocess.check_output(["iptables-save"], text=True)
    return {
        "processes": processes(),
        "mounts": [line for line in lines("/proc/self/mounts") if PREFIX in line],
        "interfaces": sorted(path.name for path in Path("/sys/class/net").glob(f"{PREFIX}*")),
        "routes": [ip("route", "show", "to", "root", network) for network in NETWORKS],
        "groups": group_names(PREFIX),
        "iptables": [line for line in rules.splitlines() if "KUBE-" in line or PREFIX in line],
        "settings": {name: Path("/proc/sys", name).read_text() for name in SETTINGS},
        "files": [path for path in (disks, RECORD) if path.exists()],
    }


def lines(path: str) -> list[str]:
    return sorted(Path(path).read_text().splitlines())


def processes() -> list[str]:
    """Return the names of what is in a control group of a node, or runs a real cluster's parts."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            groups = (path / "cgroup").read_text()
        except OSError:  # it has ended meanwhile
            continue
        if PREFIX in groups or HOST in words or "tests.cluster.leftovers" in words:
            found.append(words)
    return sorted(found)


@pytest.fixture
def before() -> dict[str, object]:
    """The machine before, when no other such cluster runs on it."""
    Tenancy.begin().end()
    return traces()


def test_ended_cluster_leaves_nothing(tmp_path: Path, before: dict[str, object]) -> None:
    with RealCluster.start(tmp_path / "state"):
        assert traces() != before
    assert traces() == before
    assert not (tmp_path / "state").exists()


def test_start_that_fails_half_way_leaves_nothing(
    tmp_path: Path, before: dict[str, object]
) -> None:
    with pytest.raises(ClusterUnavailable, match="not_a_name-holder ended"):
        RealCluster.start(tmp_path / "state", nodes=("n1", "not_a_name"))
    assert traces() == before


def test_cluster_of_a_killed_process_leaves_nothing(
    tmp_path: Path, before: dict[str, object]
) -> None:
    command = [sys.executable, "-c", START_AND_WAIT, str(tmp_path / "state")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while traces() != before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert traces() == before
    assert not (tmp_path / "state").exists()
