"""No proxy of the environment stands between the tests and a cluster of this machine."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Final

from tests.cluster.bridge import NETWORKS

# urllib and httpx know no networks in NO_PROXY, and addresses of pods cannot all be named there.
# Plain HTTP is what they speak with the cluster; to the outside it is HTTPS, whose proxy stays.
_PLAIN: Final = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


def bypass_proxies(environment: MutableMapping[str, str]) -> None:
    """Let this process, and what it starts, go to the cluster's addresses directly."""
    for name in ("NO_PROXY", "no_proxy"):
        kept = [word for word in environment.get(name, "").split(",") if word]
        environment[name] = ",".join(dict.fromkeys([*kept, *NETWORKS]))
    for name in _PLAIN:
        environment.pop(name, None)
