from __future__ import annotations

from tests.cluster.proxies import bypass_proxies


def test_networks_of_the_cluster_are_added_once_to_what_bypasses_the_proxy() -> None:
    environment = {"no_proxy": "localhost,.example", "HTTPS_PROXY": "http://proxy.example"}
    bypass_proxies(environment)
    bypass_proxies(environment)
    networks = "172.30.77.0/24,10.77.0.0/16,10.98.0.0/16"
    assert environment == {
        "no_proxy": f"localhost,.example,{networks}",
        "NO_PROXY": networks,
        "HTTPS_PROXY": "http://proxy.example",
    }


def test_no_proxy_is_left_for_plain_http() -> None:
    environment = {"http_proxy": "http://proxy.example", "HTTP_PROXY": "http://proxy.example"}
    bypass_proxies(environment)
    assert set(environment) == {"NO_PROXY", "no_proxy"}
