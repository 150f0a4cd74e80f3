"""Starts the worker process, speaks with it, and always cleans it up."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from serving_runtime.config import EngineConfig
from serving_runtime.errors import EngineStopped, RuntimeFailure
from serving_runtime.pipe import encode, read
from serving_runtime.process_output import lines
from serving_runtime.step import ModelFacts, Step, StepResult

logger = logging.getLogger(__name__)

WORKER: Final = (sys.executable, "-P", "-m", "serving_runtime.worker")
_LEVELS: Final = logging.getLevelNamesMapping()
START_TIMEOUT_S: Final = 1800.0
"""Reading a large model from a slow disk takes minutes; a hang must still end."""
EXIT_TIMEOUT_S: Final = 10.0
"""From the end of a worker's pipe to the end of its process; killed after that."""


class Executor(Protocol):
    """Runs steps on the ranks of one replica."""

    @property
    def failure(self) -> str | None:
        """Why no step can run any more; None while they can."""
        ...

    async def start(self) -> ModelFacts:
        """Start the ranks.

        Raises:
            Refused: the user must mend something first.
            EngineStopped: a rank failed or was not ready in time.
        """
        ...

    async def execute(self, step: Step) -> StepResult:
        """Run one step; to cancel this stops the ranks.

        Raises:
            EngineStopped: a rank is gone.
        """
        ...

    async def stop(self) -> None:
        """End every process; nothing is left afterwards, however often it is called."""
        ...


class ProcessExecutor:
    """One rank in one child process."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        command: Sequence[str] = WORKER,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self._config = config
        self._command = command
        self._start_timeout_s = start_timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._watch: asyncio.Task[None] | None = None
        self._answer: asyncio.Future[object] | None = None
        self._failure: RuntimeFailure | None = None
        self._last_lines: deque[str] = deque(maxlen=1)

    @property
    def failure(self) -> str | None:
        """Why the worker is gone; None while it lives."""
        return None if self._failure is None else str(self._failure)

    async def start(self) -> ModelFacts:
        """Start the worker and wait until its model is loaded; see `Executor`."""
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await self._spawn()
                facts = await self._ask(self._config)
        except TimeoutError:
            await self.stop()
            raise EngineStopped(
                f"the worker was not ready after {self._start_timeout_s:g} s"
            ) from None
        except BaseException:
            await self.stop()
            raise
        assert isinstance(facts, ModelFacts), "the first answer"
        return facts

    async def execute(self, step: Step) -> StepResult:
        """Run one step in the worker; see `Executor`."""
        try:
            result = await self._ask(step)
        except asyncio.CancelledError:
            # Its result would be taken for the next step's.
            self._kill()
            raise
        assert isinstance(result, StepResult), "the answer to a step"
        return result

    async def stop(self) -> None:
        """Kill the worker and wait until it is gone; see `Executor`."""
        if self._failure is None:
            self._failure = EngineStopped("the engine was stopped")
        self._kill()
        if self._watch is not None:
            await asyncio.wait([self._watch])
        if self._writer is not None:
            self._writer.close()
            with suppress(ConnectionError):
                await self._writer.wait_closed()

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            reader, self._writer = await asyncio.open_connection(sock=ours)
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                str(theirs.fileno()),
                str(os.getpid()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                env=_environment(self._config),
            )
        finally:
            theirs.close()
        self._watch = asyncio.create_task(self._watch_worker(self._process, reader))

    async def _ask(self, message: object) -> object:
        if self._failure is not None:
            raise EngineStopped(str(self._failure))
        assert self._writer is not None, "not started"
        self._answer = asyncio.get_running_loop().create_future()
        self._writer.write(encode(message))
        return await self._answer

    async def _watch_worker(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader
    ) -> None:
        """Hand out the worker's answers; when they end, find out why and reap the process."""
        assert process.stderr is not None
        passing_on = asyncio.create_task(self._pass_on(process.stderr))
        failure: RuntimeFailure | None = None
        try:
            while failure is None:
                message = await read(reader)
                if isinstance(message, RuntimeFailure):
                    failure = message
                elif self._answer is not None and not self._answer.done():
                    self._answer.set_result(message)
        except (EOFError, ConnectionError):
            logger.debug("the worker closed its pipe")
        await _reap(process)
        await passing_on
        self._fail(failure or EngineStopped(self._describe_end(process)))

    def _fail(self, failure: RuntimeFailure) -> None:
        self._failure = self._failure or failure
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self._failure)

    async def _pass_on(self, stderr: asyncio.StreamReader) -> None:
        """Log the worker's lines as ours, in our form, and keep the last one for a message."""
        async for text in lines(stderr):
            if text:
                self._last_lines.append(text)
                level, _, message = text.partition(" ")
                if level in _LEVELS:
                    logger.log(_LEVELS[level], "worker: %s", message)
                else:
                    logger.warning("worker: %s", text)

    def _describe_end(self, process: asyncio.subprocess.Process) -> str:
        code = process.returncode
        how = f"was killed by {_signal_name(-code)}" if code and code < 0 else f"exited with {code}"
        has_words = self._last_lines and code is not None and code > 0
        last = f": {self._last_lines[-1].strip()}" if has_words else ""
        return f"the worker of device {self._config.devices[0]} {how}{last}"

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            _kill_group(self._process.pid)


async def _reap(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(EXIT_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        _kill_group(process.pid)
        await process.wait()


def _kill_group(pid: int) -> None:
    """Kill a worker with whatever it started; it leads a process group of its own."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        logger.debug("process group %s is gone already", pid)


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"


def _environment(config: EngineConfig) -> dict[str, str]:
    """Return the worker's environment: ours, no network, no progress bars, its own threads.

    OpenMP reads its settings once, before the worker's own code runs. Its threads sleep where they
    wait: spinning, two replicas that share cores keep each other from working.
    """
    environment = (
        {"OMP_WAIT_POLICY": "PASSIVE"}
        | os.environ
        | {
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        }
    )
    if config.threads is not None:
        environment["OMP_NUM_THREADS"] = str(config.threads)
    return environment
