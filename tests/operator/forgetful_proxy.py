"""A network that forgets connections: both ends believe in them, and no byte ever arrives again."""

from __future__ import annotations

import asyncio

from tests.cluster.tcp_proxy import TcpProxy


class ForgetfulProxy(TcpProxy):
    """A TcpProxy that can also lose what is open, as a firewall does whose table is full."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self._lost = asyncio.Event()

    def forget(self) -> None:
        """Let the open connections be silent for ever; new ones work."""
        self._call(self._forget())

    async def _forget(self) -> None:
        self._lost.set()
        self._lost = asyncio.Event()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pumping = asyncio.ensure_future(super()._pump(reader, writer))
        losing = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait([pumping, losing], return_when=asyncio.FIRST_COMPLETED)
            if losing.done():
                pumping.cancel()
                await asyncio.Event().wait()
        finally:
            pumping.cancel()
            losing.cancel()
            await asyncio.gather(pumping, losing, return_exceptions=True)
