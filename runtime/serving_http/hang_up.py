"""Work for a client, which ends when the client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from starlette.types import Receive


async def until_hang_up(receive: Receive, work: Coroutine[object, object, None]) -> None:
    """Run `work` to its end, or cancel it when the client hangs up; its cleanup is awaited.

    The request's body must have been read before.
    """
    working = asyncio.ensure_future(work)
    hang_up = asyncio.ensure_future(_hang_up(receive))
    try:
        await asyncio.wait((working, hang_up), return_when=asyncio.FIRST_COMPLETED)
    finally:
        hang_up.cancel()
        if not working.done():
            working.cancel()
        await asyncio.wait((working, hang_up))
    if not working.cancelled():
        working.result()


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
