"""A steady load of streams through the client Service, and what became of each.

The official client with its default retries sends them: a request has failed when that raises, or
when a stream ends cleanly without all that it promised.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import openai

MODEL: Final = "tiny"
CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 90.0
"""Between two bytes. A router calls a silent replica dead after 30 s, and says so."""
_WARM_UP_TIMEOUT_S: Final = 120.0
_STOP_TIMEOUT_S: Final = 180.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that failed.

    Attributes:
        is_typed: the server said what was wrong, in the one shape of its errors.
        tokens: how many were streamed before.
        at: seconds after the load began.
    """

    is_typed: bool
    words: str
    tokens: int
    at: float


@dataclass(slots=True)
class Outcome:
    """What became of the requests so far."""

    answered: int = 0
    tokens: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def untyped(self) -> list[Failure]:
        return [failure for failure in self.failures if not failure.is_typed]

    def __str__(self) -> str:
        return f"{self.answered} answered, {len(self.failures)} failed, {self.tokens} tokens"


class SteadyLoad:
    """So many streams at any time, from entering to leaving the context.

    Args:
        url: of the client Service.
        streams: how many are open at any time.
        tokens: of one answer.
    """

    def __init__(self, url: str, *, streams: int = 4, tokens: int = 150) -> None:
        self.outcome = Outcome()
        self._url = url
        self._streams = streams
        self._tokens = tokens
        self._began = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="steady-load", daemon=True)

    def __enter__(self) -> Self:
        """Begin, and wait until every stream has come to its end once."""
        self._thread.start()
        self.wait_for_answers(self._streams)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let what is open come to its end."""
        if kind is None:
            self.wait_for_answers(self.outcome.answered + self._streams)
        self._stopping.set()
        self._thread.join(_STOP_TIMEOUT_S)
        assert not self._thread.is_alive(), f"streams hang: {self.outcome}"

    def wait_for_answers(self, count: int, timeout_s: float = _WARM_UP_TIMEOUT_S) -> None:
        """Wait until so many requests have been answered."""
        deadline = time.monotonic() + timeout_s
        while self.outcome.answered < count:
            assert self._thread.is_alive(), "the load has ended"
            assert time.monotonic() < deadline, f"no {count} answers: {self.outcome}"
            time.sleep(0.05)

    def _run(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        timeout = openai.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        client = openai.AsyncOpenAI(base_url=f"{self._url}/v1", api_key="none", timeout=timeout)
        async with client, asyncio.TaskGroup() as group:
            for number in range(self._streams):
                group.create_task(self._requests(client, number))

    async def _requests(self, client: openai.AsyncOpenAI, number: int) -> None:
        turn = number
        while not self._stopping.is_set():
            await self._request(client, turn)
            turn += 1

    async def _request(self, client: openai.AsyncOpenAI, turn: int) -> None:
        """Send one; every fourth is not streamed."""
        received = 0
        try:
            if turn % 4 == 3:
                received = await self._whole(client)
            else:
                async for _ in self._stream(client):
                    received += 1
            if received != self._tokens:
                raise _CutOff(f"a clean end after {received} of {self._tokens} tokens")
        except Exception as error:  # noqa: BLE001 - whatever the client raises is a failure
            self._note(error, received)
            await asyncio.sleep(0.1)
        else:
            self.outcome.answered += 1
            self.outcome.tokens += received

    def _note(self, error: Exception, received: int) -> None:
        failure = Failure(
            is_typed=_is_typed(error),
            words=f"{type(error).__name__}: {error}",
            tokens=received,
            at=round(time.monotonic() - self._began, 1),
        )
        self.outcome.failures.append(failure)

    async def _whole(self, client: openai.AsyncOpenAI) -> int:
        answer = await client.completions.create(
            model=MODEL,
            prompt="The river knows its way",
            max_tokens=self._tokens,
            extra_body={"ignore_eos": True},
        )
        assert answer.usage is not None
        return answer.usage.completion_tokens

    async def _stream(self, client: openai.AsyncOpenAI) -> AsyncIterator[int]:
        stream = await client.completions.create(
            model=MODEL,
            prompt="The old clock on the tower",
            max_tokens=self._tokens,
            stream=True,
            extra_body={"ignore_eos": True, "return_token_ids": True},
        )
        async for chunk in stream:
            for choice in chunk.choices:
                for token in getattr(choice, "token_ids", None) or ():
                    yield token


class _CutOff(Exception):
    """A stream ended as if all were well, and was not whole."""


def _is_typed(error: Exception) -> bool:
    """Whether the server itself told what is wrong, before the answer or within it."""
    if isinstance(error, openai.APIStatusError):
        return isinstance(error.body, dict) and "code" in error.body
    return type(error) is openai.APIError and error.body is not None
