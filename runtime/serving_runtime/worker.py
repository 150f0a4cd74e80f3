"""The worker process of one rank: `python -m serving_runtime.worker FD PARENT_PID`.

It reads the configuration from its pipe and answers with `ModelFacts`; then a `StepResult` for
every `Step`. Whatever goes wrong is its last message, an exception with one line for the user. It
never outlives its parent: the kernel kills it with the parent, and a closed pipe ends it.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
import warnings
from typing import TYPE_CHECKING

from serving_runtime.config import EngineConfig
from serving_runtime.errors import EngineStopped, RuntimeFailure
from serving_runtime.lifeline import die_with_parent
from serving_runtime.pipe import BlockingPipe
from serving_runtime.step import Step

if TYPE_CHECKING:
    from serving_runtime.rank import Rank
    from serving_runtime.step import ModelFacts

logger = logging.getLogger(__name__)


def main() -> int:
    """Run a worker until its pipe is closed; 1 if it failed."""
    fd, parent_pid = (int(argument) for argument in sys.argv[1:])
    die_with_parent(parent_pid)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    warnings.simplefilter("ignore")
    pipe = BlockingPipe(socket.socket(fileno=fd))
    try:
        _serve(pipe)
    except (EOFError, ConnectionError):
        return 0
    except RuntimeFailure as failure:
        logger.debug("worker failed", exc_info=True)
        pipe.send(failure)
        return 1
    return 0


def _serve(pipe: BlockingPipe) -> None:
    config = pipe.receive()
    assert isinstance(config, EngineConfig), "the first message"
    rank, facts = _start(config)
    pipe.send(facts)
    while True:
        step = pipe.receive()
        assert isinstance(step, Step), "every other message"
        pipe.send(rank.execute(step))


def _start(config: EngineConfig) -> tuple[Rank, ModelFacts]:
    config.check()
    start = time.perf_counter()
    # Here and not above: a wrong flag or folder is told before torch is imported.
    from serving_runtime.rank import start_rank

    phases = {"import": time.perf_counter() - start}
    try:
        return start_rank(config, phases)
    except RuntimeFailure:
        raise
    except Exception as error:
        logger.exception("start failed")
        raise EngineStopped(f"the model did not start: {_line(error)}") from error


def _line(error: Exception) -> str:
    first_line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first_line}"


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # The libraries' own clean-up takes seconds and complains; there is nothing to save.
    os._exit(code)
