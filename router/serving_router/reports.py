"""One load stream per replica, kept open for as long as discovery names the replica.

A line that is missing, late or malformed means a new connection, whose first line is whole again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from serving_contract.errors import MalformedReport
from serving_contract.load import LoadReport, parse_report
from serving_router.background import keep_running
from serving_router.backoff import Backoff, Uniform
from serving_router.errors import ReplicaFailed, ReplicaUnreachable
from serving_router.load_table import LoadTable
from serving_router.replica import Identity, Replica

_log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.05
MAX_PAUSE_S: Final = 2.0
PROBE_INTERVAL_S: Final = 5.0
"""How often a replica without a load stream is asked again; it also shows that it is alive."""


class LoadStreams(Protocol):
    """Opens load streams."""

    def watch(self, replica: Replica) -> AbstractAsyncContextManager[AsyncIterable[bytes] | None]:
        """Return the lines of a replica's stream, None if it has no such path."""
        ...


class ReportReaders:
    """The readers of all replicas; `follow` starts and stops them as the set changes."""

    def __init__(
        self,
        table: LoadTable,
        streams: LoadStreams,
        *,
        uniform: Uniform = random.uniform,
    ) -> None:
        self._table = table
        self._streams = streams
        self._uniform = uniform
        self._tasks: dict[Identity, asyncio.Task[None]] = {}

    def follow(self, replicas: Iterable[Replica], tasks: asyncio.TaskGroup) -> None:
        """Read from these replicas and no others.

        One that has never served is left alone: it still loads, and would only refuse. One that
        serves no more is read on, because it may have streams to finish.
        """
        wanted = {replica.identity: replica for replica in replicas}
        for identity in self._tasks.keys() - wanted.keys():
            self._tasks.pop(identity).cancel()
        for identity in wanted.keys() - self._tasks.keys():
            if (replica := wanted[identity]).serving:
                name = f"reports {replica.name}"
                self._tasks[identity] = tasks.create_task(self._read(replica), name=name)

    async def _read(self, replica: Replica) -> None:
        await keep_running(f"reading {replica.name}", lambda: self._read_forever(replica))

    async def _read_forever(self, replica: Replica) -> None:
        pauses = Pauses(self._uniform)
        while True:
            try:
                await self._read_stream(replica, pauses)
            except ReplicaUnreachable as error:
                self._table.mark_unreachable(replica)
                pauses.log(replica, error, logging.INFO)
            except (ReplicaFailed, MalformedReport) as error:
                pauses.log(replica, error, logging.WARNING)
            await asyncio.sleep(pauses.next_s())

    async def _read_stream(self, replica: Replica, pauses: Pauses) -> None:
        async with self._streams.watch(replica) as lines:
            if lines is None:
                self._table.forget_reports(replica)
                pauses.wait_for_probe()
                return
            expected_seq = 0
            async for line in lines:
                report = parse_report(line)
                check_seq(report, expected_seq)
                self._table.observe(replica, report)
                if expected_seq > 0:
                    pauses.reset()
                expected_seq += 1


def check_seq(report: LoadReport, expected: int) -> None:
    """Refuse a stream that lost a line.

    Raises:
        MalformedReport: this is not the line that had to come.
    """
    if report.seq != expected:
        raise MalformedReport(f"load report: seq {report.seq} came, {expected} had to come")


class Pauses:
    """How long to wait before the next connection: doubling, with jitter, from 50 ms to 2 s."""

    def __init__(self, uniform: Uniform) -> None:
        self._uniform = uniform
        self._backoff = Backoff(first_s=FIRST_PAUSE_S, longest_s=MAX_PAUSE_S, uniform=uniform)
        self._waits_for_probe = False
        self._has_logged = False

    def reset(self) -> None:
        """Begin again with the shortest: a report came."""
        self._backoff.reset()
        self._has_logged = False

    def wait_for_probe(self) -> None:
        """Wait long: there is no stream to read."""
        self.reset()
        self._waits_for_probe = True

    def next_s(self) -> float:
        """Return the next pause in seconds."""
        if self._waits_for_probe:
            self._waits_for_probe = False
            return self._uniform(PROBE_INTERVAL_S / 2, PROBE_INTERVAL_S)
        return self._backoff.next_s()

    def log(self, replica: Replica, error: Exception, level: int) -> None:
        """Log the first of several failures in a row; being away or loading is no fault."""
        if not self._has_logged:
            _log.log(level, "load reports of replica %s: %s", replica.name, error)
            self._has_logged = True
