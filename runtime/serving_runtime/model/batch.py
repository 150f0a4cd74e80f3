"""The sequences that a rank knows, and the tensors that a step makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from serving_runtime.model.paged import Decodes, Places, Prefill, StepLayout
from serving_runtime.sequence import Sequence
from serving_runtime.step import Chunk, NewSequence, Step


@dataclass(frozen=True, slots=True)
class Scored:
    """Prompt tokens whose log probabilities are asked for.

    Attributes:
        first_row: of the logits; the row before a token is the one that foretells it.
        token_ids: one for each row from there on.
    """

    sequence: Sequence
    first_row: int
    token_ids: list[int]


@dataclass(frozen=True, slots=True)
class StepInputs:
    """What one forward pass takes and how its logits are read.

    Attributes:
        input_ids: int64 [num_tokens].
        positions: int64 [num_tokens], of each token in its sequence.
        logit_tokens: int64 [num_rows], the tokens whose logits are needed.
        drawing: the sequences that draw a token, in the order of the step's chunks.
        drawing_rows: the row of the logits for each of them.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    layout: StepLayout
    logit_tokens: torch.Tensor
    drawing: tuple[Sequence, ...]
    drawing_rows: list[int]
    scored: tuple[Scored, ...]


class Batch:
    """Every sequence that the rank was told of and has not forgotten.

    The block table has one row for each of them and stays on the device; a step writes only the
    blocks that are new.
    """

    def __init__(
        self, *, max_num_seqs: int, max_model_len: int, block_size: int, device: torch.device
    ) -> None:
        self.max_model_len = max_model_len
        self.block_size = block_size
        self.device = device
        self._sequences: dict[str, Sequence] = {}
        self._free_rows = list(range(max_num_seqs))
        shape = (max_num_seqs, -(-max_model_len // block_size))
        self._block_table = torch.zeros(shape, dtype=torch.int64, device=device)

    def take(self, step: Step) -> StepInputs:
        """Take in what a step says of the sequences and prepare its forward pass."""
        for request_id in step.forgotten:
            self._free_rows.append(self._sequences.pop(request_id).row)
        for new in step.admitted:
            self._sequences[new.request_id] = _sequence(new, self._free_rows.pop())
        for chunk in step.chunks:
            self._append_blocks(self._sequences[chunk.request_id], chunk.new_block_ids)
        return self._inputs(step)

    def _append_blocks(self, sequence: Sequence, block_ids: tuple[int, ...]) -> None:
        if block_ids:
            end = sequence.num_blocks + len(block_ids)
            new = torch.tensor(block_ids, device=self.device)
            self._block_table[sequence.row, sequence.num_blocks : end] = new
            sequence.num_blocks = end

    def _inputs(self, step: Step) -> StepInputs:
        # Sorting is stable: single tokens first, each kind in the order of the step.
        chunks = sorted(step.chunks, key=lambda chunk: chunk.num_tokens > 1)
        rows = _Rows()
        input_ids: list[int] = []
        positions: list[int] = []
        for chunk in chunks:
            sequence = self._sequences[chunk.request_id]
            end = chunk.start + chunk.num_tokens
            rows.read(chunk, sequence, first=len(input_ids))
            input_ids += sequence.token_ids[chunk.start : end]
            positions += range(chunk.start, end)
        drawing = [chunk.request_id for chunk in step.chunks if chunk.samples]
        return StepInputs(
            input_ids=self._tensor(input_ids),
            positions=self._tensor(positions),
            layout=self._layout(chunks, positions),
            logit_tokens=self._tensor(rows.tokens),
            drawing=tuple(self._sequences[request_id] for request_id in drawing),
            drawing_rows=[rows.drawing[request_id] for request_id in drawing],
            scored=tuple(rows.scored),
        )

    def _layout(self, chunks: list[Chunk], positions: list[int]) -> StepLayout:
        num_decodes = sum(chunk.num_tokens == 1 for chunk in chunks)
        table_rows = self._tensor([self._sequences[chunk.request_id].row for chunk in chunks])
        prefills, first = [], num_decodes
        for row, chunk in zip(table_rows[num_decodes:], chunks[num_decodes:], strict=True):
            blocks = self._blocks(row.unsqueeze(0), chunk.start + chunk.num_tokens)
            prefills.append(Prefill(first, chunk.start, chunk.num_tokens, blocks))
            first += chunk.num_tokens
        return StepLayout(
            places=self._places(chunks, table_rows, positions),
            decodes=self._decodes(table_rows[:num_decodes], positions[:num_decodes]),
            prefills=tuple(prefills),
        )

    def _places(
        self, chunks: list[Chunk], table_rows: torch.Tensor, positions: list[int]
    ) -> Places:
        counts = self._tensor([chunk.num_tokens for chunk in chunks])
        at = self._tensor(positions)
        blocks = self._block_table[table_rows.repeat_interleave(counts), at // self.block_size]
        firsts = [i for i, position in enumerate(positions) if position % self.block_size == 0]
        return Places(blocks, at % self.block_size, started=blocks[self._tensor(firsts)])

    def _decodes(self, table_rows: torch.Tensor, positions: list[int]) -> Decodes | None:
        if not positions:
            return None
        at = self._tensor(positions)
        blocks = self._blocks(table_rows, max(positions) + 1)
        first_tokens = torch.arange(blocks.shape[1], device=self.device) * self.block_size
        is_past_end = first_tokens > at.unsqueeze(1)
        return Decodes(torch.where(is_past_end, blocks[:, :1], blocks), at)

    def _blocks(self, table_rows: torch.Tensor, num_tokens: int) -> torch.Tensor:
        """Return the blocks of the first tokens of each row: int64 [num_rows, num_blocks]."""
        return self._block_table[table_rows, : -(-num_tokens // self.block_size)]

    def _tensor(self, numbers: list[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self.device)


class _Rows:
    """Which tokens' logits are needed, collected chunk by chunk."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.drawing: dict[str, int] = {}
        self.scored: list[Scored] = []

    def read(self, chunk: Chunk, sequence: Sequence, *, first: int) -> None:
        """Ask for the rows that a chunk needs; `first` is its first token's place in the step."""
        end = chunk.start + chunk.num_tokens
        if sequence.wants_prompt_scored:
            token_ids = sequence.token_ids[chunk.start + 1 : end + 1]
            self.scored.append(Scored(sequence, len(self.tokens), token_ids))
            self.tokens += range(first, first + len(token_ids))
        if chunk.samples:
            self.drawing[chunk.request_id] = len(self.tokens)
            self.tokens.append(first + chunk.num_tokens - 1)


def _sequence(new: NewSequence, row: int) -> Sequence:
    return Sequence(
        request_id=new.request_id,
        token_ids=list(new.token_ids),
        prompt_len=new.prompt_len,
        sampling=new.sampling,
        row=row,
    )
