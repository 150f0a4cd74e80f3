"""What a rank knows of one sequence: it lives from its admission until it is forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field

from serving_runtime.request import SamplingParams, TokenLogprob


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """One sequence on a rank.

    Attributes:
        token_ids: prompt and output, the token drawn last included.
        row: of the block table.
        num_blocks: entries of that row in use.
        scored: log probabilities of the prompt tokens so far, the first one left out.
    """

    request_id: str
    token_ids: list[int]
    prompt_len: int
    sampling: SamplingParams
    row: int
    num_blocks: int = 0
    scored: list[TokenLogprob] = field(default_factory=list)

    @property
    def num_drawn(self) -> int:
        """Output tokens so far: the position that the next random draw depends on."""
        return len(self.token_ids) - self.prompt_len

    @property
    def wants_prompt_scored(self) -> bool:
        """After a preemption the prompt was scored already."""
        return self.sampling.prompt_logprobs is not None and self.num_drawn == 0
