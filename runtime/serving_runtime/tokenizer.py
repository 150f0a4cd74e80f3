"""Text to token ids and back, as the model's folder defines it.

Stands on the `tokenizers` library alone: importing transformers' tokenizers takes seconds and
brings torch into the server's process. So the folder needs a `tokenizer.json`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import tokenizers
from pydantic import JsonValue
from tokenizers import AddedToken, decoders

from serving_runtime.chat_template import ChatMessage, ChatTemplate, continue_final_message
from serving_runtime.detokenizer import ByteDetokenizer, Detokenizer, WindowDetokenizer
from serving_runtime.errors import InvalidModel, InvalidRequest
from serving_runtime.model_files import JsonObject, read_eos_token_ids, read_json_object

SPECIAL_TOKEN_NAMES: Final = ("bos_token", "eos_token", "pad_token", "unk_token")
_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """How messages become a prompt.

    Attributes:
        variables: further variables of the template.
    """

    add_generation_prompt: bool = True
    continue_final_message: bool = False
    variables: Mapping[str, JsonValue] = field(default_factory=dict)


class Tokenizer:
    """The tokenizer and chat template of one model folder. Safe to use from several threads.

    Attributes:
        eos_token_ids: tokens that end a sequence.

    Raises:
        InvalidModel: a file is missing or corrupt.
    """

    def __init__(self, model: Path) -> None:
        config = read_json_object(model / "tokenizer_config.json")
        special_tokens = _special_tokens(config)
        self._tokenizer = _load(model / "tokenizer.json")
        _add_configured_tokens(self._tokenizer, config)
        source = _template_source(model, config)
        self._template = None if source is None else ChatTemplate(source, special_tokens)
        self._bytes_of_character = _byte_level_alphabet(self._tokenizer)
        added = self._tokenizer.get_added_tokens_decoder()
        self._special_ids = frozenset(i for i, token in added.items() if token.special)
        self.eos_token_ids = self._eos_token_ids(model, special_tokens)

    def encode(self, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
        """Return the token ids of a text. Lone surrogates are no text and become U+FFFD."""
        clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        # The batch call releases the interpreter lock, so a thread really runs beside the loop.
        encoded = self._tokenizer.encode_batch_fast([clean], add_special_tokens=add_special_tokens)
        return tuple(encoded[0].ids)

    def render_chat(self, messages: Sequence[ChatMessage], options: ChatOptions) -> str:
        """Return the prompt's text.

        Raises:
            InvalidRequest: the model has no chat template, or the template refuses the messages.
        """
        if self._template is None:
            raise InvalidRequest(
                "messages: this model has no chat template; use /v1/completions", param="messages"
            )
        text = self._template.render(
            messages,
            add_generation_prompt=options.add_generation_prompt,
            variables=options.variables,
        )
        if not options.continue_final_message:
            return text
        return continue_final_message(text, messages[-1]["content"])

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Return the text of token ids; ids outside the vocabulary have none."""
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def detokenizer(
        self, prompt_token_ids: Sequence[int], *, skip_special_tokens: bool
    ) -> Detokenizer:
        """Return a detokenizer for an answer to this prompt."""
        if self._bytes_of_character is not None:
            return ByteDetokenizer(self._shown_bytes if skip_special_tokens else self.token_bytes)

        def decode(token_ids: Sequence[int]) -> str:
            return self.decode(token_ids, skip_special_tokens=skip_special_tokens)

        return WindowDetokenizer(decode, prompt_token_ids)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the UTF-8 bytes of one token, which may be part of a character."""
        token = self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        if self._bytes_of_character is not None:
            return _byte_level_bytes(token, self._bytes_of_character)
        if byte := _BYTE_TOKEN.fullmatch(token):
            return bytes.fromhex(byte[1])
        return self.decode([token_id], skip_special_tokens=False).encode()

    def _shown_bytes(self, token_id: int) -> bytes:
        return b"" if token_id in self._special_ids else self.token_bytes(token_id)

    def _eos_token_ids(self, model: Path, special_tokens: Mapping[str, str]) -> frozenset[int]:
        """The model's own ids, and the tokenizer's: chat models end turns with the latter."""
        own = self._tokenizer.token_to_id(special_tokens.get("eos_token", ""))
        return read_eos_token_ids(model) | ({own} if own is not None else frozenset())


def _load(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise InvalidModel(
            f"{path.parent}: has no tokenizer.json; "
            "save the tokenizer again with transformers' save_pretrained"
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    # The library raises bare Exception.
    except Exception as error:
        raise InvalidModel(f"{path}: cannot be read as a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _special_tokens(config: JsonObject) -> dict[str, str]:
    """Read names such as `bos_token`; a value is a string or an object with `content`."""
    found = {name: _content(config.get(name)) for name in SPECIAL_TOKEN_NAMES}
    return {name: content for name, content in found.items() if content is not None}


def _content(value: JsonValue) -> str | None:
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _add_configured_tokens(tokenizer: tokenizers.Tokenizer, config: JsonObject) -> None:
    """Add tokens that only `tokenizer_config.json` knows, in the order of their ids."""
    listed = config.get("added_tokens_decoder")
    if not isinstance(listed, dict):
        return
    for _, entry in sorted(listed.items(), key=lambda item: int(item[0])):
        content = _content(entry)
        if isinstance(entry, dict) and content and tokenizer.token_to_id(content) is None:
            is_special = bool(entry.get("special"))
            tokenizer.add_tokens([AddedToken(content, special=is_special, normalized=False)])


def _template_source(model: Path, config: JsonObject) -> str | None:
    """Find the template: a file of its own, else in the configuration, by name if several."""
    path = model / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    match config.get("chat_template"):
        case str(source):
            return source
        case list(named):
            entries = [entry for entry in named if isinstance(entry, dict)]
            sources = {str(entry.get("name")): entry.get("template") for entry in entries}
            default = sources.get("default")
            return default if isinstance(default, str) else None
        case _:
            return None


def _byte_level_alphabet(tokenizer: tokenizers.Tokenizer) -> dict[str, int] | None:
    """Return what byte each character of a byte-level token stands for; None for other kinds.

    The alphabet is that of GPT-2: printable bytes stand for themselves, the others for characters
    from U+0100 upwards, in their order.
    """
    if not isinstance(tokenizer.decoder, decoders.ByteLevel):
        return None
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(0x100)) - set(printable))
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _byte_level_bytes(token: str, alphabet: Mapping[str, int]) -> bytes:
    """An added token is plain text: one character outside the alphabet shows that."""
    try:
        return bytes(alphabet[character] for character in token)
    except KeyError:
        return token.encode()
