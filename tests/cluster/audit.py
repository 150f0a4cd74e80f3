"""The API server's audit log: who asked for what, and how it was answered."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.cluster.api import Api, Body

_MARK: Final = "audit-mark-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request that was answered; a watch is there once it has ended.

    Attributes:
        user: such as `system:serviceaccount:NAMESPACE:NAME`.
        subresource: empty for the object itself.
        code: the HTTP status.
        time: when the request came, as RFC 3339 in UTC.
    """

    user: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    uri: str
    time: str

    @classmethod
    def of(cls, line: Body) -> Self:
        """Read one line of the log."""
        target = line.get("objectRef", {})
        return cls(
            user=line["user"].get("username", ""),
            verb=line["verb"],
            group=target.get("apiGroup", ""),
            resource=target.get("resource", ""),
            subresource=target.get("subresource", ""),
            namespace=target.get("namespace", ""),
            name=target.get("name", ""),
            code=line.get("responseStatus", {}).get("code", 0),
            uri=line["requestURI"],
            time=line["requestReceivedTimestamp"],
        )


class Audit:
    """Reads the audit log of one API server, whose client it is given."""

    def __init__(self, api: Api, log: Path) -> None:
        self._api = api
        self._log = log
        self._last_mark = 0

    def mark(self) -> int:
        """Return the place in the log after every request that was answered until now."""
        name = f"{_MARK}{secrets.token_hex(8)}"
        self._api.exists(f"/api/v1/namespaces/default/configmaps/{name}")
        end = self._api.wait(lambda: self._end_of(name), f"request for {name} in the audit log")
        self._last_mark = end
        return end

    def entries(self, *, user: str | None = None, since: int = 0) -> list[Entry]:
        """Return the requests of a user, or of all, from a mark until now, in order of answer."""
        length = self.mark() - since
        with self._log.open("rb") as log:
            log.seek(since)
            lines = log.read(length).splitlines()
        entries = (Entry.of(json.loads(line)) for line in lines)
        return [
            entry
            for entry in entries
            if user in (None, entry.user) and not entry.name.startswith(_MARK)
        ]

    def _end_of(self, name: str) -> int | None:
        with self._log.open("rb") as log:
            log.seek(self._last_mark)
            before, found, after = log.read().partition(name.encode())
        line, end, _ = after.partition(b"\n")
        return self._last_mark + len(before + found + line + end) if end else None
