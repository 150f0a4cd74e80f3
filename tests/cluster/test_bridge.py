"""Networks that the machine already uses are not taken from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.cluster.bridge import check_networks
from tests.cluster.errors import ClusterUnavailable


def use_routes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, inside: str = "", ways: dict[str, str]
) -> None:
    """Put a program `ip` on the PATH that knows these routes; all else goes by eth0."""
    cases = "".join(f'*"get {address}") echo "{way}";;\n' for address, way in ways.items())
    script = (
        f'#!/bin/sh\ncase "$*" in\n{cases}*get*) echo "$4 via 192.0.2.1 dev eth0";;\n'
        f'*172.30.77.0/24) echo "{inside}";;\nesac\n'
    )
    (folder / "ip").write_text(script)
    (folder / "ip").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_networks_without_routes_of_their_own_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_links: None
) -> None:
    use_routes(tmp_path, monkeypatch, ways={})
    check_networks()


def test_route_into_a_network_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_links: None
) -> None:
    use_routes(tmp_path, monkeypatch, inside="172.30.77.128/25 dev eth1", ways={})
    with pytest.raises(ClusterUnavailable, match=r"needs 172.30.77.0/24, .*: 172.30.77.128/25"):
        check_networks()


def test_wider_route_to_elsewhere_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_links: None
) -> None:
    use_routes(tmp_path, monkeypatch, ways={"10.77.0.0": "10.77.0.0 via 10.0.0.1 dev tun0"})
    with pytest.raises(ClusterUnavailable, match=r"needs 10.77.0.0/16, .* dev tun0; remove it"):
        check_networks()


def test_tunnel_for_everything_is_no_use_of_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_links: None
) -> None:
    addresses = ("172.30.77.0", "10.77.0.0", "10.98.0.0", "198.51.100.1")
    use_routes(tmp_path, monkeypatch, ways=dict.fromkeys(addresses, "dev tun0"))
    check_networks()


def test_bridge_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_links: None
) -> None:
    use_routes(tmp_path, monkeypatch, ways={})
    (tmp_path / "links" / "asnode-br").touch()
    with pytest.raises(ClusterUnavailable, match="`ip link del asnode-br` removes it"):
        check_networks()


@pytest.fixture
def no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without interfaces."""
    (tmp_path / "links").mkdir()
    monkeypatch.setattr("tests.cluster.bridge._LINKS", tmp_path / "links")
