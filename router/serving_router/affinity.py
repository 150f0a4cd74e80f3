"""Session affinity: the replica that a session used last, for a while."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

MAX_SESSIONS: Final = 100_000
"""The sessions used longest ago are forgotten first: about 20 MB at most."""


class Sessions:
    """Session -> replica URL, bounded in time and in number.

    Sessions are kept as digests: a header may be long, and its value is the client's own business.
    """

    def __init__(self, *, ttl_s: float, max_sessions: int = MAX_SESSIONS) -> None:
        self._ttl_s = ttl_s
        self._max_sessions = max_sessions
        self._used: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._used)

    def replica_of(self, session: str, now: float) -> str | None:
        """Return the URL that the session is bound to, if it was used within the TTL."""
        url, used_at = self._used.get(_digest(session), (None, 0.0))
        return url if url is not None and now - used_at <= self._ttl_s else None

    def bind(self, session: str, url: str, now: float) -> None:
        """Bind a session, or renew it, and forget what is over."""
        digest = _digest(session)
        self._used[digest] = (url, now)
        self._used.move_to_end(digest)
        while self._is_over(now):
            self._used.popitem(last=False)

    def _is_over(self, now: float) -> bool:
        _, oldest_use = next(iter(self._used.values()))
        return len(self._used) > self._max_sessions or now - oldest_use > self._ttl_s


def _digest(session: str) -> bytes:
    return hashlib.blake2b(session.encode(errors="replace"), digest_size=16).digest()
