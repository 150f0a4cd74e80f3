"""A scope that someone outside can end, with a reason."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from serving_router.errors import RouterError


class Cut:
    """`async with Cut() as cut`: after `cut(reason)` the body is cancelled and `reason` raised."""

    def __init__(self) -> None:
        self._timeout = asyncio.timeout(None)
        self._reason: RouterError | None = None
        self._is_open = False

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._is_open = True
        return self

    def __call__(self, reason: RouterError) -> None:
        """End the scope; the first reason counts, and a scope that has ended stays as it is."""
        if self._is_open and self._reason is None:
            self._reason = reason
            self._timeout.reschedule(asyncio.get_running_loop().time())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_open = False
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            assert self._reason is not None
            raise self._reason from None
