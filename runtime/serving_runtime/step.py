"""What the scheduler and a rank tell each other: one `Step` there, one `StepResult` back.

Plain frozen values, pickled over a pipe. A sequence's tokens travel once, when it is admitted;
afterwards a rank knows them, because it drew them itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from serving_runtime.request import SamplingParams, TokenLogprob


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSequence:
    """A sequence that the rank does not know: just admitted, or preempted before.

    Attributes:
        token_ids: the prompt and, after a preemption, the output so far.
    """

    request_id: str
    token_ids: tuple[int, ...]
    prompt_len: int
    sampling: SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The tokens `start .. start + num_tokens` of one sequence, to be computed in this step.

    Attributes:
        new_block_ids: appended to the sequence's block table before the step.
        samples: the chunk reaches the last known token, so the next one is drawn.
    """

    request_id: str
    start: int
    num_tokens: int
    new_block_ids: tuple[int, ...]
    samples: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One forward pass.

    Attributes:
        forgotten: sequences that finished or were preempted; dropped before `admitted` is read.
    """

    step_id: int
    forgotten: tuple[str, ...]
    admitted: tuple[NewSequence, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a step gave.

    Attributes:
        token_ids: one for each chunk that samples, in the order of the step's chunks.
        logprobs: by request id, of the drawn token, where the request asks for them.
        prompt_logprobs: by request id, of every prompt token but the first, with the first token
            that is drawn.
    """

    step_id: int
    token_ids: tuple[int, ...]
    logprobs: dict[str, TokenLogprob] = field(default_factory=dict)
    prompt_logprobs: dict[str, tuple[TokenLogprob, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known once the model is loaded.

    Attributes:
        max_model_len: prompt and output tokens of one sequence.
        dtype: name of the data type in use, e.g. `float32`.
        device: name of the device, for people.
        phases: seconds of each phase of the start, in order.
    """

    num_blocks: int
    block_size: int
    max_model_len: int
    vocab_size: int
    dtype: str
    device: str
    phases: dict[str, float]
