"""The state of one replica: loading, ready, draining, failed; and the work that is open."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from serving_http.errors import ApiError, model_not_found
from serving_runtime.config import EngineConfig
from serving_runtime.engine import Engine
from serving_runtime.errors import EngineStopped
from serving_runtime.executor import Executor
from serving_runtime.load import Load, LoadBoard
from serving_runtime.metrics import ReplicaMetrics
from serving_runtime.model_files import SamplingDefaults
from serving_runtime.tokenizer import Tokenizer

_FAREWELL_S: Final = 2.0
"""For writing the typed error into the streams that the end of the drain has cut off."""
_RETRY: Final = {"retry-after": "1"}

_log = logging.getLogger(__name__)


class Replica:
    """One model copy behind the HTTP endpoints."""

    def __init__(
        self,
        *,
        config: EngineConfig,
        executor: Executor,
        tokenizer: Tokenizer,
        sampling_defaults: SamplingDefaults,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.served_name = config.served_name
        self.tokenizer = tokenizer
        self.sampling_defaults = sampling_defaults
        self.created = int(time.time())
        self.metrics = ReplicaMetrics()
        self.metrics.observe_load(self.load, self._num_preemptions)
        self.board = LoadBoard(epoch=uuid.uuid4().hex, measure=self.load, clock=clock)
        self._config = config
        self._executor = executor
        self._clock = clock
        self._engine: Engine | None = None
        self._is_draining = False
        self._open_answers = 0
        self._no_open_answer = asyncio.Event()
        self._no_open_answer.set()

    async def run(self) -> NoReturn:
        """Load the model, warm it up, generate until cancelled; always stops the executor.

        Raises:
            Refused: the model cannot be served.
            EngineStopped: the worker is gone.
        """
        try:
            engine = await self._start()
            self._engine = engine
            self.board.changed()
            _log.info("%s is ready on %s", self.served_name, engine.facts.device)
            await engine.run()
        finally:
            await self._executor.stop()

    async def drain(self, timeout_s: float) -> None:
        """Refuse new work, let open answers end, cut off what is left after `timeout_s`.

        Watch streams are told at once and closed last.
        """
        self._is_draining = True
        self.board.changed()
        if not await self._answers_end_within(timeout_s) and self._engine is not None:
            _log.warning("%s answers are cut off: the drain timeout is over", self._open_answers)
            self._engine.fail(EngineStopped("the replica is shutting down"))
            await self._answers_end_within(_FAREWELL_S)
        self.board.close()

    @property
    def is_ready(self) -> bool:
        """Whether a request would be accepted."""
        return self._engine is not None and self._engine.is_healthy and not self._is_draining

    @property
    def is_alive(self) -> bool:
        """Whether waiting is better than a restart; loading is being alive."""
        return self._engine is None or self._engine.is_healthy

    @property
    def engine(self) -> Engine:
        """The engine, for what needs the model only.

        Raises:
            ApiError: 503, the model is not loaded yet.
        """
        self.check_loaded()
        assert self._engine is not None
        return self._engine

    def check_loaded(self) -> None:
        """Refuse what has a meaning only when the model is loaded.

        Raises:
            ApiError: 503.
        """
        if self._engine is None:
            raise _unavailable("the model is still loading")

    def engine_for_new_work(self) -> Engine:
        """Return the engine.

        Raises:
            ApiError: 503, the replica is loading, draining or broken.
        """
        if self._is_draining:
            raise _unavailable("the replica is draining")
        engine = self.engine
        if not engine.is_healthy:
            raise replica_failed("the engine is gone")
        return engine

    def check_model(self, name: str | None) -> None:
        """Refuse another model's name; None stands for the one that is served.

        Raises:
            ApiError: 404.
        """
        if name is not None and name != self.served_name:
            raise model_not_found(name, [self.served_name])

    @contextmanager
    def open_answer(self) -> Iterator[None]:
        """Count an answer that a drain has to wait for."""
        self._open_answers += 1
        self._no_open_answer.clear()
        try:
            yield
        finally:
            self._open_answers -= 1
            if self._open_answers == 0:
                self._no_open_answer.set()

    def load(self) -> Load:
        """Count the load now; a replica that is not ready yet has none."""
        load = Load() if self._engine is None else self._engine.load()
        return dataclasses.replace(load, draining=self._is_draining)

    async def _start(self) -> Engine:
        facts = await self._executor.start()
        began_at = self._clock()
        engine = Engine(
            config=self._config,
            facts=facts,
            executor=self._executor,
            tokenizer=self.tokenizer,
            metrics=self.metrics,
            board=self.board,
            clock=self._clock,
        )
        await engine.warm_up()
        self.metrics.started({**facts.phases, "warm_up": self._clock() - began_at})
        return engine

    async def _answers_end_within(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._no_open_answer.wait()
        except TimeoutError:
            return False
        return True

    def _num_preemptions(self) -> int:
        return 0 if self._engine is None else self._engine.num_preemptions


def replica_failed(message: str) -> ApiError:
    """Return the error of a request that this replica cannot finish; another one might."""
    return ApiError(503, message, code="replica_failed", headers=_RETRY)


def _unavailable(message: str) -> ApiError:
    return ApiError(503, message, code="no_replica_ready", headers=_RETRY)
