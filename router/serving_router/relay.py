"""Carries one replica's answer to the client, and breaks it off so that the client notices."""

from __future__ import annotations

from typing import Final

import aiohttp
from starlette.types import Send

from serving_contract.headers import PROMPT_TOKENS, REPLICA
from serving_http.errors import ApiError
from serving_router import passage
from serving_router.answer import AnswerReader, StreamReader, UnaryReader, Usage
from serving_router.errors import ReplicaFailed, ReplicaRefused
from serving_router.ledger import Reservation

_EVENT_STREAM: Final = "text/event-stream"


class Relay:
    """One attempt's answer.

    The head is sent with the first bytes of the body, so that a replica that dies between the two
    can still be replaced.

    Attributes:
        has_begun: something has been sent; another replica can no longer take over.
        succeeded: a whole answer with status 200 went through.
    """

    def __init__(self, reservation: Reservation, send: Send) -> None:
        self.has_begun = False
        self.succeeded = False
        self._reservation = reservation
        self._send_message = send
        self._reader: AnswerReader = UnaryReader()
        self._prompt_tokens: int | None = None

    async def carry(self, answer: aiohttp.ClientResponse) -> None:
        """Pass the whole answer on.

        Raises:
            ReplicaRefused: the answer is a 503.
            ReplicaFailed: the answer broke off.
        """
        name = self._reservation.replica.name
        if answer.status == 503:
            raise ReplicaRefused(f"replica {name} takes no new requests now")
        if answer.content_type == _EVENT_STREAM:
            self._reader = StreamReader()
        self._prompt_tokens = _count(answer.headers.get(PROMPT_TOKENS))
        try:
            async for data in answer.content.iter_any():
                passed, events = self._reader.feed(data)
                self._reservation.receive(events)
                await self._send(answer, passed)
        except (aiohttp.ClientError, OSError) as error:
            raise ReplicaFailed(f"replica {name} broke off its answer") from error
        if not self._reader.is_whole:
            raise ReplicaFailed(f"replica {name} ended a stream without [DONE]")
        await self._send(answer, self._reader.end(), is_last=True)
        self.succeeded = answer.status == 200

    async def _send(
        self, answer: aiohttp.ClientResponse, body: bytes, *, is_last: bool = False
    ) -> None:
        if not body and not is_last:
            return
        if not self.has_begun:
            self.has_begun = True
            headers = self._headers(answer)
            await self._send_message(
                {"type": "http.response.start", "status": answer.status, "headers": headers}
            )
        await self._send_message(
            {"type": "http.response.body", "body": body, "more_body": not is_last}
        )

    def _headers(self, answer: aiohttp.ClientResponse) -> list[passage.Header]:
        headers = passage.to_client(answer.raw_headers)
        if self._streams:
            headers = [header for header in headers if header[0] != b"content-length"]
        return [*headers, (REPLICA.encode(), self._reservation.replica.name.encode())]

    @property
    def _streams(self) -> bool:
        return isinstance(self._reader, StreamReader)

    async def break_off(self, error: ApiError) -> None:
        """End an answer that has begun: a stream with an error event, any other with a cut.

        The empty line ends an event that was sent in part. Returning from an answer that is not
        complete makes the server close the connection, so that a client notices the missing bytes.
        """
        if self._streams:
            body = b"\n" + error.sse()
            await self._send_message(
                {"type": "http.response.body", "body": body, "more_body": False}
            )

    def usage(self) -> Usage:
        """Return the answer's token counts, the replica's own header first."""
        told = self._reader.usage()
        if self._prompt_tokens is None:
            return told
        return Usage(self._prompt_tokens, told.completion_tokens)


def _count(value: str | None) -> int | None:
    return int(value) if value is not None and value.isascii() and value.isdecimal() else None
