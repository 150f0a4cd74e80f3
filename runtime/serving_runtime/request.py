"""One sequence that the engine generates: token ids only, never text."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class FinishReason(StrEnum):
    """Why a sequence ended; the first two are OpenAI's."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are drawn. Every value is validated and every default applied before.

    Attributes:
        max_tokens: at least 1; scoring a prompt draws one token, which the engine then drops.
        temperature: 0 takes the most likely token.
        top_k: 0 keeps all.
        seed: of this sequence; the draw at a position depends on nothing else.
        eos_token_ids: empty when EOS is ignored. Not drawn before `min_tokens`, like stop tokens.
        logprobs: how many most likely tokens to report with each token; 0 = the drawn one only.
        prompt_logprobs: the same for each prompt token but the first.
        logit_bias: token id -> what is added to its logit.
    """

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    eos_token_ids: frozenset[int] = frozenset()
    stop_token_ids: frozenset[int] = frozenset()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """Log probability of one token, of the raw logits, and of the most likely ones, best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """A sequence and where it stands. Only the scheduler changes it after it was added.

    Attributes:
        request_id: unique among the unfinished requests of this engine.
        expected_tokens: output expected in all; raised when reached (`serving_contract.estimate`).
        num_computed_tokens: tokens whose keys and values are in the cache.
        block_ids: the KV blocks that hold them, in order; the last one may be partly filled.
        finish_reason: None while unfinished.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    expected_tokens: int
    output_token_ids: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0
    block_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    @property
    def num_tokens(self) -> int:
        """Prompt and output tokens known so far."""
        return len(self.prompt_token_ids) + len(self.output_token_ids)
