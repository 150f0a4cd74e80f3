"""Work that goes on for as long as the router serves, whatever happens to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

_log = logging.getLogger(__name__)

PAUSE_AFTER_FAULT_S: Final = 1.0


async def keep_running(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` to its end; when it raises, log that and begin again after a pause."""
    while True:
        try:
            return await work()
        except Exception:  # noqa: BLE001 - a fault in one task must not end the router
            _log.exception("%s failed and begins again", name)
            await asyncio.sleep(PAUSE_AFTER_FAULT_S)
