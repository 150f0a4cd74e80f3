"""Log probabilities in OpenAI's two forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from serving_contract.openai_answers import (
    ChatLogprobs,
    ChatTokenLogprob,
    CompletionLogprobs,
    TopLogprob,
)
from serving_runtime.detokenizer import Detokenizer
from serving_runtime.request import TokenLogprob
from serving_runtime.tokenizer import Tokenizer

LOWEST: Final = -9999.0
"""Stands for minus infinity, which JSON does not have."""


def token_text(token_bytes: bytes) -> str:
    r"""Write a token as OpenAI does: text, or `bytes:\xe2\x80` for a part of a character."""
    try:
        return token_bytes.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token_bytes)


def chat_logprobs(entries: Sequence[TokenLogprob], tokenizer: Tokenizer) -> ChatLogprobs:
    """Return the log probabilities of chat, one entry for each token."""
    return ChatLogprobs(content=[_chat_entry(entry, tokenizer) for entry in entries], refusal=None)


def _chat_entry(entry: TokenLogprob, tokenizer: Tokenizer) -> ChatTokenLogprob:
    drawn = tokenizer.token_bytes(entry.token_id)
    return ChatTokenLogprob(
        token=token_text(drawn),
        logprob=max(entry.logprob, LOWEST),
        bytes=list(drawn),
        top_logprobs=[_top(token_id, value, tokenizer) for token_id, value in entry.top],
    )


def _top(token_id: int, logprob: float, tokenizer: Tokenizer) -> TopLogprob:
    likely = tokenizer.token_bytes(token_id)
    return TopLogprob(token=token_text(likely), logprob=max(logprob, LOWEST), bytes=list(likely))


class CompletionLogprobsWriter:
    """Writes the parallel lists of one completion, piece by piece.

    Args:
        tokenizer: says how a token is written.
        detokenizer: fed with every token; the text it has given is a token's offset.
        num_top: how many likely tokens are listed besides the drawn one; 0 lists none.
    """

    def __init__(self, tokenizer: Tokenizer, detokenizer: Detokenizer, num_top: int) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = detokenizer
        self._num_top = num_top
        self._offset = 0

    def prompt(
        self, token_ids: Sequence[int], entries: Sequence[TokenLogprob]
    ) -> CompletionLogprobs:
        """Write an echoed prompt; its first token has no log probability."""
        first = CompletionLogprobs(
            text_offset=[self._next_offset(token_ids[0])],
            token_logprobs=[None],
            tokens=[self._text(token_ids[0])],
            top_logprobs=[None] if self._num_top else None,
        )
        return joined(first, self.answer(entries))

    def answer(self, entries: Sequence[TokenLogprob]) -> CompletionLogprobs:
        """Write the next tokens."""
        return CompletionLogprobs(
            text_offset=[self._next_offset(entry.token_id) for entry in entries],
            token_logprobs=[max(entry.logprob, LOWEST) for entry in entries],
            tokens=[self._text(entry.token_id) for entry in entries],
            top_logprobs=[self._top(entry) for entry in entries] if self._num_top else None,
        )

    def _next_offset(self, token_id: int) -> int:
        offset = self._offset
        self._offset += len(self._detokenizer.push(token_id))
        return offset

    def _top(self, entry: TokenLogprob) -> dict[str, float]:
        """List the likely tokens and the drawn one, which need not be among them."""
        values = {**dict(entry.top), entry.token_id: entry.logprob}
        return {self._text(token_id): max(value, LOWEST) for token_id, value in values.items()}

    def _text(self, token_id: int) -> str:
        return token_text(self._tokenizer.token_bytes(token_id))


def joined(first: CompletionLogprobs, second: CompletionLogprobs) -> CompletionLogprobs:
    """Return two pieces of one completion as one."""
    has_top = first.top_logprobs is not None and second.top_logprobs is not None
    return CompletionLogprobs(
        text_offset=first.text_offset + second.text_offset,
        token_logprobs=first.token_logprobs + second.token_logprobs,
        tokens=first.tokens + second.tokens,
        top_logprobs=(first.top_logprobs or []) + (second.top_logprobs or []) if has_top else None,
    )
