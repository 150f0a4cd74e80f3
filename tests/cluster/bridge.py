"""The network of a cluster with real nodes: a bridge of its own, and who has which address there.

Pods are routed, not bridged, so the host and every node reach each pod at its own address.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.components import SERVICES
from tests.cluster.errors import ClusterUnavailable

# Interfaces, cgroups and folders of ours begin with this: by it they are found and removed.
PREFIX: Final = "asnode-"
BRIDGE: Final = f"{PREFIX}br"
HOST: Final = "172.30.77.1"
PODS: Final = "10.77.0.0/16"
FIRST_SERVICE: Final = "10.98.0.1"
_LINKS: Final = Path("/sys/class/net")
_NODES: Final = "172.30.77"
_SUBNET: Final = f"{_NODES}.0/24"
NETWORKS: Final = (_SUBNET, PODS, SERVICES)
_NOBODY: Final = "198.51.100.1"
"""Reserved for documentation (RFC 5737): its way is the one of what has no route of its own."""
_SEEN_BY_IPTABLES: Final = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_PASS: Final = ("FORWARD", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A node's place in the network; the first node has number 1."""

    name: str
    number: int

    @property
    def address(self) -> str:
        return f"{_NODES}.{10 + self.number}"

    @property
    def pods(self) -> str:
        return f"10.77.{self.number}.0/24"

    @property
    def link(self) -> str:
        """The host's end of its cable."""
        return f"{PREFIX}{self.number}"


def check_networks() -> None:
    """Look whether the bridge can be made.

    Raises:
        ClusterUnavailable: if its name or one of the networks is in use on this machine.
    """
    if (_LINKS / BRIDGE).exists():
        raise ClusterUnavailable(
            f"the test cluster needs an interface {BRIDGE}, and this machine has one already; "
            f"`ip link del {BRIDGE}` removes it"
        )
    for network in NETWORKS:
        if used := _use(network):
            raise ClusterUnavailable(
                f"the test cluster needs {network}, and this machine has a route there: {used}; "
                "remove it, or run the tests on another machine"
            )


def _use(network: str) -> str:
    """Return a route into a network, or a wider one that leads elsewhere than most; or nothing."""
    if within := ip("route", "show", "to", "root", network).strip():
        return within
    way = _way_to(network.partition("/")[0])
    return "" if _device(way) == _device(_way_to(_NOBODY)) else way


def _way_to(address: str) -> str:
    done = subprocess.run(
        ["ip", "-o", "route", "get", address], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()  # nothing where no route leads there


def _device(way: str) -> str:
    return _word_after("dev", way) or ""


def make_bridge() -> None:
    """Make the bridge, at which the host is `HOST`."""
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("addr", "add", f"{HOST}/24", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")
    # Docker's rules drop what is forwarded, and br_netfilter takes frames of a bridge for that.
    if _SEEN_BY_IPTABLES.exists() and _SEEN_BY_IPTABLES.read_text().strip() == "1":
        subprocess.run(["iptables", "-w", "-I", *_PASS], check=True)


def remove_rule() -> None:
    """Remove the rule by which frames pass between nodes, if it is there."""
    subprocess.run(["iptables", "-w", "-D", *_PASS], capture_output=True, check=False)


def plug_in(place: Place, pid: int) -> None:
    """Connect the network namespace of process `pid` to the bridge, and route the host there."""
    ip("link", "add", place.link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    ip("link", "set", place.link, "master", BRIDGE, "up")
    ip("route", "replace", place.pods, "via", place.address)
    # A Service's address means something on nodes only; the host goes by way of the first.
    if place.number == 1 or not _way_to_services():
        ip("route", "replace", SERVICES, "via", place.address)


def unplug(place: Place, others: Sequence[Place]) -> None:
    """Pull the cable; the host goes to Services by way of another node then."""
    if (_LINKS / place.link).exists():
        ip("link", "del", place.link)
    if others and _way_to_services() == place.address:
        ip("route", "replace", SERVICES, "via", others[0].address)


def remove_links(prefix: str) -> None:
    """Remove every interface whose name begins so, and the routes that lead there."""
    for link in _LINKS.glob(f"{prefix}*"):
        subprocess.run(["ip", "link", "del", link.name], capture_output=True, check=False)


def _way_to_services() -> str | None:
    return _word_after("via", ip("route", "show", SERVICES))


def _word_after(word: str, text: str) -> str | None:
    words = text.split()
    return words[words.index(word) + 1] if word in words else None


def ip(*words: str) -> str:
    """Run `ip` and return what it prints."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterUnavailable(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
