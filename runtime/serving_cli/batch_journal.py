"""The files of an offline batch: requests in, a journal of what is done, results in input order.

Answers are journalled as they come, each with the digest of its request, so that a run that was cut
off, by Ctrl-C or by power, goes on where it was; the output appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pydantic import BaseModel, JsonValue, ValidationError

from serving_cli.errors import CommandFailed, UsageError

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """One line of the input.

    Attributes:
        digest: of the line; a journal entry holds for this request only.
        body: the OpenAI request, still without a model.
    """

    index: int
    digest: str
    body: dict[str, JsonValue]

    @property
    def path(self) -> str:
        """Return the endpoint: chat for `messages`, completions for `prompt`."""
        return CHAT_PATH if "messages" in self.body else COMPLETIONS_PATH


class BatchResult(BaseModel):
    """One line of journal and output: an answer, or the error in its stead."""

    index: int
    digest: str
    response: dict[str, JsonValue] | None = None
    error: dict[str, JsonValue] | None = None

    def to_output(self) -> bytes:
        """Return the line of the output file."""
        line = self.model_dump(exclude={"digest"}, exclude_none=True)
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def read_requests(file: Path) -> list[BatchRequest]:
    """Read the input; empty lines do not count.

    Raises:
        UsageError: it cannot be read, or a line is no request; the message names the line.
    """
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"--input {file}: {error.strerror}") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    return [
        _read_request(index, line, where=f"{file}, line {number}")
        for index, (number, line) in enumerate(numbered)
    ]


def _read_request(index: int, line: bytes, *, where: str) -> BatchRequest:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON: {error}") from error
    if not isinstance(body, dict) or ("prompt" in body) == ("messages" in body):
        raise UsageError(f"{where}: must be an object with either `prompt` or `messages`")
    if body.get("stream"):
        raise UsageError(f"{where}: `stream` makes no sense in a batch; leave it out")
    return BatchRequest(index=index, digest=hashlib.sha256(line).hexdigest()[:16], body=body)


class Journal:
    """What is done of one batch; a context manager that owns the journal's file.

    Raises:
        UsageError: the output exists already, or a file cannot be written.
    """

    def __init__(self, output: Path, requests: list[BatchRequest]) -> None:
        if output.exists():
            raise UsageError(f"--output {output} exists already; choose another")
        self._output = output
        self._path = output.with_name(output.name + ".partial")
        self._digests = [request.digest for request in requests]
        self._offsets: dict[int, int] = {}
        self.num_errors = 0
        try:
            self._file: BinaryIO = self._path.open("a+b")
        except OSError as error:
            raise UsageError(f"--output {output}: {error.strerror}") from error
        self._recover()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def num_done(self) -> int:
        """Return how many requests have a result."""
        return len(self._offsets)

    def is_done(self, request: BatchRequest) -> bool:
        """Return whether a request has a result."""
        return request.index in self._offsets

    def add(self, result: BatchResult) -> None:
        """Write one result down.

        Raises:
            OSError: the disk is full; nothing that was written before is lost.
        """
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(result.model_dump_json(exclude_none=True).encode() + b"\n")
        self._file.flush()
        self._take(result, offset)

    def finish(self) -> None:
        """Write the output in the order of the input and drop the journal.

        Raises:
            CommandFailed: the output cannot be written; the journal stays.
        """
        temporary = self._output.with_name(self._output.name + ".writing")
        try:
            with temporary.open("wb") as output:
                self._write_in_order(output)
            temporary.replace(self._output)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise CommandFailed(
                f"--output {self._output}: {error.strerror}; every answer is in {self._path}: "
                "make room and run it again"
            ) from error
        self._path.unlink()

    def _write_in_order(self, output: BinaryIO) -> None:
        for index in range(len(self._digests)):
            self._file.seek(self._offsets[index])
            output.write(BatchResult.model_validate_json(self._file.readline()).to_output())

    def _recover(self) -> None:
        """Take over what an earlier run has done; a torn last line is cut off."""
        end = 0
        for offset, line in self._lines():
            result = _parse(line)
            if result is None:
                break
            end = offset + len(line)
            self._take(result, offset)
        self._file.truncate(end)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        self._file.seek(0)
        while True:
            offset = self._file.tell()
            line = self._file.readline()
            if not line.endswith(b"\n"):
                return
            yield offset, line

    def _take(self, result: BatchResult, offset: int) -> None:
        is_current = (
            result.index < len(self._digests) and self._digests[result.index] == result.digest
        )
        if is_current:
            self._offsets[result.index] = offset
            self.num_errors += result.error is not None


def _parse(line: bytes) -> BatchResult | None:
    try:
        return BatchResult.model_validate_json(line)
    except ValidationError:
        return None
