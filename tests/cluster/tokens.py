"""Who may speak to a control plane of ours: a token for each user, made anew for each cluster."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ADMIN: Final = "admin"
CONTROLLERS: Final = "system:kube-controller-manager"
SCHEDULER: Final = "system:kube-scheduler"
PROXY: Final = "system:kube-proxy"
DNS: Final = "dns"
_MASTERS: Final = (ADMIN, CONTROLLERS, SCHEDULER, DNS)


def node_user(name: str) -> str:
    """Return the user that a node's kubelet is."""
    return f"system:node:{name}"


class Tokens:
    """The tokens of one cluster with these nodes."""

    def __init__(self, nodes: Iterable[str] = ()) -> None:
        self._groups: dict[str, tuple[str, ...]] = {
            **dict.fromkeys(_MASTERS, ("system:masters",)),
            PROXY: (),
            **{node_user(name): ("system:nodes",) for name in nodes},
        }
        self._tokens = {user: secrets.token_hex(16) for user in self._groups}

    def of(self, user: str) -> str:
        """Return a user's token."""
        return self._tokens[user]

    def write(self, path: Path) -> Path:
        """Write the file that the API server reads, for its owner alone."""
        rows = (
            ",".join([self._tokens[user], user, user, *groups])
            for user, groups in self._groups.items()
        )
        path.touch(mode=0o600)
        path.write_text("".join(f"{row}\n" for row in rows))
        return path
