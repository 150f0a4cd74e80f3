"""When to ask the API server again, and what to say while it does not answer."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final

from serving_router.backoff import Backoff, Uniform
from serving_router.errors import DiscoveryFailed, Forbidden, HistoryGone, Unauthorized, WatchSilent

_log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 30.0
LONG_LIVED_S: Final = 5.0
"""A watch that lasted for this long was a sound one, even if nothing happened in it."""


class Outage:
    """Follows tries that fail: each kind of failure in a row is logged once, and their end."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Uniform = random.uniform,
    ) -> None:
        self._clock = clock
        self._uniform = uniform
        self._backoff = Backoff(first_s=FIRST_PAUSE_S, longest_s=MAX_PAUSE_S, uniform=uniform)
        self._watching_since: float | None = None
        self._failing_since: float | None = None
        self._last_message = ""
        self._error: DiscoveryFailed | None = None
        self._has_tried_at_once = False

    def over(self) -> None:
        """Note that the API server answers."""
        if self._failing_since is not None:
            seconds = self._clock() - self._failing_since
            _log.info("the API server answers again after %.1f s", seconds)
        self._failing_since = None
        self._last_message = ""
        self._has_tried_at_once = False

    def watching(self) -> None:
        """Note that a watch was opened."""
        self.over()
        self._watching_since = self._clock()

    def heard(self) -> None:
        """Note that a watch brought something."""
        self._backoff.reset()

    def failed(self, error: DiscoveryFailed) -> None:
        """Note how a try failed."""
        self._error = error
        if isinstance(error, WatchSilent | HistoryGone):
            # Part of any watch's life; the one comes every 90 s in an idle cluster.
            level = logging.INFO if isinstance(error, HistoryGone) else logging.DEBUG
            _log.log(level, "%s; listing again", error)
            return
        if self._failing_since is None:
            self._failing_since = self._clock()
        if str(error) != self._last_message:
            self._last_message = str(error)
            level = logging.ERROR if isinstance(error, Forbidden) else logging.WARNING
            _log.log(level, "%s; the last known replicas stay", error)

    def pause_s(self) -> float:
        """Return how long to wait before the next try; ask once after each."""
        error, self._error = self._error, None
        if isinstance(error, Unauthorized) and not self._has_tried_at_once:
            self._has_tried_at_once = True
            return 0.0
        if self._was_sound():
            self._backoff.reset()
        pause_s = self._backoff.next_s()
        if error is None or error.retry_after_s is None:
            return pause_s
        return max(pause_s, self._uniform(1.0, 1.5) * error.retry_after_s)

    def _was_sound(self) -> bool:
        since, self._watching_since = self._watching_since, None
        return since is not None and self._clock() - since >= LONG_LIVED_S
