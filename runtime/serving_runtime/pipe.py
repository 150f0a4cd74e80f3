"""Messages between a replica and its worker: a length, then a pickle, over a socket pair.

Both ends are the same program of the same user, so unpickling is safe. A closed pipe is an
`EOFError` (or asyncio's `IncompleteReadError`, which is one).
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from typing import Final

_LENGTH: Final = struct.Struct("!Q")


def encode(message: object) -> bytes:
    """Serialise one message."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


async def read(reader: asyncio.StreamReader) -> object:
    """Read the next message.

    Raises:
        EOFError: the other end is closed.
    """
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    message: object = pickle.loads(await reader.readexactly(length))  # noqa: S301 - our own child
    return message


class BlockingPipe:
    """The worker's end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")

    def send(self, message: object) -> None:
        """Send one message."""
        self._connection.sendall(encode(message))

    def receive(self) -> object:
        """Wait for the next message.

        Raises:
            EOFError: the other end is closed.
        """
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        message: object = pickle.loads(self._read(length))  # noqa: S301 - our own parent
        return message

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError("the pipe is closed")
        return data
