"""One answer to a generation request, as an ASGI response: a JSON body or server-sent events.

The request enters the engine when the answer begins and leaves it when the answer ends, however it
ends: the client's disconnect cancels the answer, which aborts what is unfinished.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving_contract import headers
from serving_contract.openai_answers import PromptTokensDetails, Usage
from serving_http.hang_up import until_hang_up
from serving_runtime.errors import EngineStopped
from serving_runtime.generation import Output, Submission, merge
from serving_runtime.server.replica import Replica, replica_failed

DONE = b"data: [DONE]\n\n"
EVENT_STREAM = "text/event-stream; charset=utf-8"


class Writer(Protocol):
    """Writes outputs as one of the two APIs wants them."""

    def events(self, output: Output) -> bytes:
        """Return the server-sent events for one output, possibly none."""
        ...

    def usage_event(self, usage: Usage) -> bytes:
        """Return the event that carries the usage."""
        ...

    def whole(self, outputs: Sequence[Output], usage: Usage) -> bytes:
        """Return the answer in one piece; outputs are in the order of the choices."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """How the answer travels."""

    stream: bool
    include_usage: bool


class Answer(Response):
    """The answer to one submission."""

    def __init__(
        self, replica: Replica, submission: Submission, writer: Writer, form: AnswerForm
    ) -> None:
        super().__init__()
        self._replica = replica
        self._submission = submission
        self._writer = writer
        self._form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, unless the client goes away before.

        Raises:
            ApiError: 503, the engine stopped before the first byte.
        """
        answering = self._stream(send) if self._form.stream else self._send_whole(send)
        await until_hang_up(receive, answering)

    async def _send_whole(self, send: Send) -> None:
        with self._replica.open_answer():
            try:
                outputs = await self._collect()
            except EngineStopped as failure:
                raise replica_failed(str(failure)) from failure
            usage = self._usage(sum(len(output.token_ids) for output in outputs))
            body = self._writer.whole(outputs, usage)
            load = {headers.ENDPOINT_LOAD_METRICS: orca_text(self._replica)}
            await send(self._head("application/json", load | {"content-length": str(len(body))}))
            await send({"type": "http.response.body", "body": body})

    async def _collect(self) -> list[Output]:
        merged: dict[int, Output] = {}
        async with self._replica.engine_for_new_work().submit(self._submission) as generation:
            async for output in generation.outputs():
                before = merged.get(output.index)
                merged[output.index] = output if before is None else merge(before, output)
        return [merged[index] for index in sorted(merged)]

    async def _stream(self, send: Send) -> None:
        """Send events; the head goes with the first, so that a failure before is a plain error."""
        has_begun = False
        with self._replica.open_answer():
            try:
                async with aclosing(self._events()) as events:
                    async for event in events:
                        if not has_begun:
                            await send(self._head(EVENT_STREAM, {"cache-control": "no-cache"}))
                            has_begun = True
                        await send({"type": "http.response.body", "body": event, "more_body": True})
            except EngineStopped as failure:
                error = replica_failed(str(failure))
                if not has_begun:
                    raise error from failure
                await send({"type": "http.response.body", "body": error.sse(), "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def _events(self) -> AsyncGenerator[bytes, None]:
        completion_tokens = 0
        async with self._replica.engine_for_new_work().submit(self._submission) as generation:
            async for output in generation.outputs():
                completion_tokens += len(output.token_ids)
                if events := self._writer.events(output):
                    yield events
        if self._form.include_usage:
            yield self._writer.usage_event(self._usage(completion_tokens))
        yield DONE

    def _usage(self, completion_tokens: int) -> Usage:
        prompt_tokens = self._submission.prompt_tokens
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=0),
        )

    def _head(self, content_type: str, more: dict[str, str]) -> dict[str, object]:
        prompt_tokens = str(self._submission.prompt_tokens)
        fields = {"content-type": content_type, headers.PROMPT_TOKENS: prompt_tokens, **more}
        raw = [(name.encode(), value.encode()) for name, value in fields.items()]
        return {"type": "http.response.start", "status": 200, "headers": raw}


class Lines(Response):
    """An endless body that ends with its source or with the client."""

    def __init__(self, lines: AsyncGenerator[bytes, None], media_type: str) -> None:
        super().__init__(media_type=media_type)
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send line by line."""
        await until_hang_up(receive, self._send_lines(send))

    async def _send_lines(self, send: Send) -> None:
        kept = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": kept})
        async with aclosing(self._lines) as lines:
            async for line in lines:
                await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def orca_text(replica: Replica) -> str:
    """Return the load in the text form of Open Request Cost Aggregation."""
    load = replica.load()
    values = {
        "kv_cache_usage_ratio": f"{load.kv_blocks_used / max(1, load.kv_blocks_total):.4f}",
        "num_requests_running": load.running,
        "num_requests_waiting": load.waiting,
        "pending_prompt_tokens": load.pending_prompt_tokens,
        "pending_output_tokens": load.pending_output_tokens,
        "tokens_per_second": f"{load.tokens_per_second:.1f}",
    }
    return "TEXT " + ", ".join(f"named_metrics.{name}={value}" for name, value in values.items())
