"""The worker process: it answers, it fails in one line, and it never stays behind."""

import asyncio
import dataclasses
import os
import select
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from serving_runtime.config import DeviceKind, Dtype, EngineConfig
from serving_runtime.errors import EngineStopped, InvalidModel, NotImplementedYet, Refused
from serving_runtime.executor import ProcessExecutor
from serving_runtime.request import Request, SamplingParams
from serving_runtime.scheduler import Scheduler
from serving_runtime.step import Chunk, NewSequence, Step

# A worker without a model: what the executor does with a process does not need one.
STUB = """
import os, signal, socket, sys, time
from serving_runtime.pipe import BlockingPipe
from serving_runtime.step import ModelFacts

behaviour, fd, _parent = sys.argv[1:]
pipe = BlockingPipe(socket.socket(fileno=int(fd)))
pipe.receive()
if behaviour == "hangs at start":
    time.sleep(600)
pipe.send(
    ModelFacts(
        num_blocks=8, block_size=4, max_model_len=16, vocab_size=9,
        dtype="float32", device=os.environ["OMP_WAIT_POLICY"], phases={},
    )
)
if behaviour == "dies when idle":
    os.kill(os.getpid(), signal.SIGSEGV)
pipe.receive()
if behaviour == "exits in a step":
    print("first line", file=sys.stderr)
    sys.exit("last line")
if behaviour == "is killed in a step":
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour == "closes its pipe in a step":
    os.closerange(3, 100)
time.sleep(600)
"""


@pytest.fixture
def config(model_folder: Callable[[str], Path]) -> EngineConfig:
    return EngineConfig(
        model=model_folder("qwen3"),
        served_name="tiny",
        dtype=Dtype.FLOAT32,
        kv_blocks=64,
        threads=1,
    )


@pytest.fixture
def stub(tmp_path: Path) -> Callable[[str], Sequence[str]]:
    script = tmp_path / "stub.py"
    script.write_text(STUB)
    return lambda behaviour: (sys.executable, str(script), behaviour)


@pytest.fixture(autouse=True)
async def _no_process_stays() -> AsyncIterator[None]:
    before = children()
    yield
    assert children() == before


def children() -> set[int]:
    """Processes that this one started, zombies included."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


def first_step(*block_ids: int) -> Step:
    new = NewSequence(
        request_id="a",
        token_ids=(5, 6, 7),
        prompt_len=3,
        sampling=SamplingParams(max_tokens=4, temperature=0),
    )
    chunk = Chunk(request_id="a", start=0, num_tokens=3, new_block_ids=block_ids, samples=True)
    return Step(step_id=1, forgotten=(), admitted=(new,), chunks=(chunk,))


async def test_a_worker_runs_a_request_to_its_end(config: EngineConfig) -> None:
    executor = ProcessExecutor(config)
    facts = await executor.start()
    scheduler = Scheduler(
        num_blocks=facts.num_blocks,
        block_size=facts.block_size,
        max_num_seqs=4,
        max_num_batched_tokens=64,
    )
    sampling = SamplingParams(max_tokens=5, temperature=0)
    request = Request(
        request_id="a", prompt_token_ids=(5, 6, 7), sampling=sampling, expected_tokens=5
    )
    scheduler.add(request)
    while (step := scheduler.schedule()) is not None:
        scheduler.update(step, await executor.execute(step))
    await executor.stop()
    assert len(request.output_token_ids) == 5
    assert (facts.num_blocks, facts.max_model_len, facts.vocab_size) == (64, 256, 199)
    assert facts.dtype == "float32"
    assert list(facts.phases) == ["import", "load", "profile", "self_check"]


@pytest.mark.parametrize(
    ("own", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")], ids=["by default", "as told"]
)
async def test_threads_of_a_worker_sleep_where_they_wait(
    config: EngineConfig,
    stub: Callable[[str], Sequence[str]],
    monkeypatch: pytest.MonkeyPatch,
    own: str | None,
    policy: str,
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    executor = ProcessExecutor(config, command=stub("tells its policy"))
    facts = await executor.start()
    await executor.stop()
    assert facts.device == policy


async def test_a_step_that_fails_ends_the_worker_and_says_why(config: EngineConfig) -> None:
    executor = ProcessExecutor(config)
    await executor.start()
    with pytest.raises(EngineStopped, match=r"^step 1 failed: IndexError: [^\n]+$"):
        await executor.execute(first_step(9_999))
    with pytest.raises(EngineStopped, match="step 1 failed: "):
        await executor.execute(first_step(0))
    await executor.stop()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": Path("/nowhere")}, InvalidModel, "model /nowhere: no such folder"),
        ({"device": DeviceKind.NPU}, NotImplementedYet, "--device npu: "),
        ({"kv_blocks": 3}, Refused, "set --max-model-len to at most 48"),
    ],
    ids=["folder", "backend", "kv-cache"],
)
async def test_a_refused_start_raises_the_workers_own_error(
    config: EngineConfig, change: dict[str, object], error: type[Refused], message: str
) -> None:
    wrong = dataclasses.replace(config, **change)  # type: ignore[arg-type]
    with pytest.raises(error) as caught:
        await ProcessExecutor(wrong).start()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_stop_ends_the_worker_and_may_be_called_again(
    config: EngineConfig, stub: Callable[[str], Sequence[str]]
) -> None:
    executor = ProcessExecutor(config, command=stub("waits"))
    await executor.start()
    await executor.stop()
    await executor.stop()
    with pytest.raises(EngineStopped, match="the engine was stopped"):
        await executor.execute(first_step(0))


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("is killed in a step", "worker of device 0 was killed by SIGKILL"),
        ("exits in a step", "worker of device 0 exited with 1: last line"),
    ],
)
async def test_a_worker_that_dies_ends_the_step_and_says_how(
    behaviour: str, message: str, config: EngineConfig, stub: Callable[[str], Sequence[str]]
) -> None:
    executor = ProcessExecutor(config, command=stub(behaviour))
    await executor.start()
    with pytest.raises(EngineStopped, match=message):
        await executor.execute(first_step(0))
    assert message in (executor.failure or "")
    await executor.stop()


async def test_a_worker_that_dies_when_idle_is_noticed(
    config: EngineConfig, stub: Callable[[str], Sequence[str]]
) -> None:
    executor = ProcessExecutor(config, command=stub("dies when idle"))
    await executor.start()
    async with asyncio.timeout(60):
        while executor.failure is None:  # noqa: ASYNC110 - a property tells
            await asyncio.sleep(0.01)
    assert "SIGSEGV" in executor.failure
    await executor.stop()


async def test_a_cancelled_step_ends_the_worker(
    config: EngineConfig, stub: Callable[[str], Sequence[str]]
) -> None:
    executor = ProcessExecutor(config, command=stub("waits"))
    await executor.start()
    step = asyncio.create_task(executor.execute(first_step(0)))
    await asyncio.sleep(0)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    with pytest.raises(EngineStopped):
        await executor.execute(first_step(0))
    await executor.stop()


async def test_a_cancelled_start_leaves_no_process(
    config: EngineConfig, stub: Callable[[str], Sequence[str]]
) -> None:
    before = children()
    executor = ProcessExecutor(config, command=stub("hangs at start"))
    start = asyncio.create_task(executor.start())
    while children() == before:  # noqa: ASYNC110 - the kernel tells
        await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start


async def test_a_start_that_takes_too_long_is_given_up(
    config: EngineConfig, stub: Callable[[str], Sequence[str]]
) -> None:
    executor = ProcessExecutor(config, command=stub("hangs at start"), start_timeout_s=0.5)
    with pytest.raises(EngineStopped, match=r"the worker was not ready after 0\.5 s"):
        await executor.start()


async def test_a_worker_dies_with_a_parent_that_is_killed(config: EngineConfig) -> None:
    script = """
import asyncio, os, pathlib, sys
from serving_runtime.config import EngineConfig
from serving_runtime.executor import ProcessExecutor

async def main():
    config = EngineConfig(model=pathlib.Path(sys.argv[1]), served_name="tiny")
    start = asyncio.create_task(ProcessExecutor(config).start())
    children = pathlib.Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    while not children.read_text():
        await asyncio.sleep(0)
    print(children.read_text(), flush=True)
    await start

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(config.model), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    worker = os.pidfd_open(int(await parent.stdout.readline()))
    parent.kill()
    await parent.communicate()
    # Readable once the process has ended.
    ended, _, _ = await asyncio.to_thread(select.select, [worker], [], [], 60)
    os.close(worker)
    assert ended
