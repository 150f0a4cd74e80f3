"""Text from token ids, one at a time, without ever showing a part of a character.

Pure: given what tokens mean, it knows nothing of models or requests.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Final, Protocol

REPLACEMENT: Final = "\ufffd"
MAX_CHARACTER_BYTES: Final = 4
CONTEXT_TOKENS: Final = 6
"""Of the prompt: enough to know how the first token of the answer joins it."""


class Detokenizer(Protocol):
    """Turns the tokens of one sequence into text."""

    def push(self, token_id: int) -> str:
        """Return the text that this token completes; empty inside a character."""
        ...


class ByteDetokenizer:
    """For tokens that are byte strings: exact and in constant time per token.

    Bytes that can no longer become a character are shown as U+FFFD, as decoding the whole would.
    """

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Return the text that this token completes; empty inside a character."""
        return self._decoder.decode(self._bytes_of(token_id))


class WindowDetokenizer:
    """For tokens whose text depends on their neighbours: decodes a short window twice.

    Text is the difference between the window with and without the new tokens (the idea is that of
    text-generation-inference). Tokens are held back while the text ends in an unfinished character,
    but no longer than a character can be: what ends in U+FFFD then is the text.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], context: Sequence[int]) -> None:
        self._decode = decode
        self._shown = list(context[-CONTEXT_TOKENS:])
        self._held: list[int] = []
        self._shown_text = decode(self._shown)

    def push(self, token_id: int) -> str:
        """Return the text that this token completes; empty inside a character."""
        self._held.append(token_id)
        text = self._decode([*self._shown, *self._held])
        if text.endswith(REPLACEMENT) and len(self._held) < MAX_CHARACTER_BYTES:
            return ""
        added = text[len(self._shown_text) :]
        self._shown = [*self._shown, *self._held][-CONTEXT_TOKENS:]
        self._shown_text = self._decode(self._shown)
        self._held = []
        return added
