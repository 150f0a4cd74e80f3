"""A tiny model that any text works with, a replica process that serves it, and an engine that
repeats its prompt, for what a random model cannot be made to say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest
import torch
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, Qwen3Config

from serving_contract.load import LoadReport
from serving_http.limits import Limits
from serving_http.serve import bind, running
from serving_runtime.config import EngineConfig
from serving_runtime.errors import EngineStopped, Refused
from serving_runtime.model_files import SamplingDefaults
from serving_runtime.request import TokenLogprob
from serving_runtime.server.replica import Replica
from serving_runtime.server.run import replica_app
from serving_runtime.step import ModelFacts, NewSequence, Step, StepResult
from serving_runtime.tokenizer import Tokenizer

VOCAB_SIZE = 320
MAX_POSITIONS = 512
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'system' and message.content == 'refuse' %}"
    "{{ raise_exception('no such system') }}{% endif %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    "{% if shout is defined %}{{ shout }}{% endif %}"
)
CORPUS = ["the quick brown fox jumps over the lazy dog", "hello there, hello world, and so on"]


def write_tokenizer(folder: Path) -> None:
    """Byte-level BPE, so that every text can be written."""
    tokenizer = RawTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - 20,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny random Qwen3 with tokenizer and chat template."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tokenizer(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=MAX_POSITIONS,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=False,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=None,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    return folder


SERVE = """
import asyncio, logging, socket, sys
from pathlib import Path
from serving_runtime.config import Dtype, EngineConfig
from serving_runtime.errors import RuntimeFailure
from serving_runtime.server import ServerSettings, run_replica
logging.basicConfig(level=logging.INFO)
fd, model, drain, blocks = sys.argv[1:]
config = EngineConfig(model=Path(model), served_name="tiny", dtype=Dtype.FLOAT32,
                      kv_blocks=int(blocks), threads=1, max_num_seqs=32)
settings = ServerSettings(listener=socket.socket(fileno=int(fd)), drain_timeout_s=float(drain))
try:
    asyncio.run(run_replica(config, settings))
except RuntimeFailure as failure:
    print(failure, file=sys.stderr)
    sys.exit(1)
"""


@dataclass
class ReplicaProcess:
    """A replica as an operating system process."""

    url: str
    process: subprocess.Popen[bytes]

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait generously; fail when the process ends or nothing happens."""
        deadline = time.monotonic() + 120
        while not condition():
            assert self.process.poll() is None, "the replica ended"
            assert time.monotonic() < deadline, "nothing happened"
            time.sleep(0.02)

    def wait_ready(self) -> None:
        """Wait until requests are accepted."""
        self.wait_until(lambda: self.get("/ready")[0] == 200)

    def load(self) -> dict[str, object]:
        """Return a whole load report."""
        report: dict[str, object] = json.loads(self.get("/v1/load")[1])
        return report


StartReplica = Callable[..., contextlib.AbstractContextManager[ReplicaProcess]]


@contextlib.contextmanager
def _replica_process(
    model: Path, *, drain_timeout_s: float = 30, kv_blocks: int = 2048
) -> Iterator[ReplicaProcess]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        arguments = [str(fd), str(model), str(drain_timeout_s), str(kv_blocks)]
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, *arguments], pass_fds=[fd], stderr=subprocess.DEVNULL
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield ReplicaProcess(url, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def start_replica(tiny_model: Path) -> StartReplica:
    """Return what starts a replica process of one's own."""

    def start(**settings: float) -> contextlib.AbstractContextManager[ReplicaProcess]:
        return _replica_process(tiny_model, **settings)  # type: ignore[arg-type]

    return start


@pytest.fixture(scope="session")
def replica(start_replica: StartReplica) -> Iterator[ReplicaProcess]:
    """Return a replica process that is ready; the tests share it."""
    with start_replica() as process:
        process.wait_ready()
        yield process


@pytest.fixture
def client(replica: ReplicaProcess) -> Iterator[openai.OpenAI]:
    """Return the official client of the shared replica."""
    with openai.OpenAI(base_url=f"{replica.url}/v1", api_key="-", max_retries=0) as made:
        yield made


@dataclass
class EchoExecutor:
    """A device that answers each prompt with the prompt itself, then EOS.

    Attributes:
        eos_token_id: drawn when the whole prompt was repeated.
        may_start: cleared to hold the start.
        may_step: cleared to hold the next step.
        stepping: set when a step has begun.
        steps: how many ran.
    """

    eos_token_id: int
    num_blocks: int = 256
    failure: str | None = None
    steps: int = 0
    may_start: asyncio.Event = field(default_factory=asyncio.Event)
    may_step: asyncio.Event = field(default_factory=asyncio.Event)
    stepping: asyncio.Event = field(default_factory=asyncio.Event)
    sequences: dict[str, NewSequence] = field(default_factory=dict)
    drawn: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.may_start.set()
        self.may_step.set()

    async def start(self) -> ModelFacts:
        await self.may_start.wait()
        if self.failure is not None:
            raise Refused(self.failure)
        return ModelFacts(
            num_blocks=self.num_blocks,
            block_size=4,
            max_model_len=MAX_POSITIONS,
            vocab_size=VOCAB_SIZE,
            dtype="float32",
            device="echo",
            phases={"load": 0.0},
        )

    async def execute(self, step: Step) -> StepResult:
        self.stepping.set()
        await self.may_step.wait()
        await asyncio.sleep(0)
        if self.failure is not None:
            raise EngineStopped(self.failure)
        self.steps += 1
        for sequence in step.admitted:
            self.sequences[sequence.request_id] = sequence
            self.drawn[sequence.request_id] = len(sequence.token_ids) - sequence.prompt_len
        sampled = [chunk.request_id for chunk in step.chunks if chunk.samples]
        token_ids = {request_id: self._next(request_id) for request_id in sampled}
        return StepResult(
            step_id=step.step_id,
            token_ids=tuple(token_ids.values()),
            logprobs={
                i: self._logprob(i, token)
                for i, token in token_ids.items()
                if self.sequences[i].sampling.logprobs is not None
            },
            prompt_logprobs={
                i: self._prompt_logprobs(i)
                for i in sampled
                if self.sequences[i].sampling.prompt_logprobs is not None
            },
        )

    async def stop(self) -> None:
        self.failure = self.failure or "stopped"

    def _next(self, request_id: str) -> int:
        sequence = self.sequences[request_id]
        position = self.drawn[request_id]
        self.drawn[request_id] += 1
        is_over = position >= sequence.prompt_len
        return self.eos_token_id if is_over else sequence.token_ids[position]

    def _logprob(self, request_id: str, token_id: int) -> TokenLogprob:
        count = self.sequences[request_id].sampling.logprobs or 0
        top = tuple((token_id + i, -0.5 - i) for i in range(count))
        return TokenLogprob(token_id=token_id, logprob=-0.5, top=top)

    def _prompt_logprobs(self, request_id: str) -> tuple[TokenLogprob, ...]:
        sequence = self.sequences[request_id]
        prompt = sequence.token_ids[1 : sequence.prompt_len]
        return tuple(self._logprob(request_id, token_id) for token_id in prompt)


LoadUntil = Callable[[Replica, Callable[[LoadReport], bool]], Awaitable[None]]


@pytest.fixture
def load_until() -> LoadUntil:
    """Return what waits until a replica's load is as wanted; blocks in all: it is ready."""

    async def wait(replica: Replica, is_wanted: Callable[[LoadReport], bool]) -> None:
        async with aclosing(replica.board.watch()) as reports:
            async for report in reports:
                if is_wanted(report):
                    return

    return wait


@dataclass
class EchoServer:
    """A real server in this event loop over an `EchoExecutor`."""

    url: str
    replica: Replica
    executor: EchoExecutor
    client: openai.AsyncOpenAI


@pytest.fixture
def echo_executor() -> Callable[..., EchoExecutor]:
    """Return a maker of executors."""

    def make(**fields: int) -> EchoExecutor:
        return EchoExecutor(eos_token_id=2, **fields)  # type: ignore[arg-type]

    return make


StartEcho = Callable[..., AbstractAsyncContextManager[EchoServer]]


@pytest.fixture
def echo_replica(tiny_model: Path) -> Callable[..., tuple[Replica, EchoExecutor]]:
    """Return a maker of replicas that are not served yet."""

    def make(**executor_fields: int) -> tuple[Replica, EchoExecutor]:
        executor = EchoExecutor(eos_token_id=2, **executor_fields)  # type: ignore[arg-type]
        config = EngineConfig(model=tiny_model, served_name="echo", max_num_batched_tokens=64)
        replica = Replica(
            config=config,
            executor=executor,
            tokenizer=Tokenizer(tiny_model),
            sampling_defaults=SamplingDefaults(),
        )
        return replica, executor

    return make


@pytest.fixture
def start_echo(
    echo_replica: Callable[..., tuple[Replica, EchoExecutor]], load_until: LoadUntil
) -> StartEcho:
    """Return what starts an `EchoServer`."""

    @contextlib.asynccontextmanager
    async def start(**executor_fields: int) -> AsyncIterator[EchoServer]:
        replica, executor = echo_replica(**executor_fields)
        listener = bind("127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        engine = asyncio.create_task(replica.run())
        app = replica_app(replica, None)
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)
        async with running(app, sockets=[listener], limits=Limits(), tls=None), client:
            try:
                await load_until(replica, lambda report: report.kv_blocks_total > 0)
                yield EchoServer(url, replica, executor, client)
            finally:
                replica.board.close()
                engine.cancel()
                await asyncio.wait([engine])

    return start
