"""Prompts to tokens, beside the event loop when that takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from serving_contract.openai import ChatRequest, CompletionRequest, Message, Prompt
from serving_runtime.chat_template import ChatMessage
from serving_runtime.server.completions import EncodedPrompt
from serving_runtime.tokenizer import ChatOptions, Tokenizer

LONG_TEXT: Final = 2048
"""Characters. Shorter texts take about half a millisecond, no more than a thread's detour."""

T = TypeVar("T")


async def encode_chat(request: ChatRequest, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the tokens of a chat's prompt.

    Raises:
        InvalidRequest: the chat template refuses the messages.
    """
    continues = bool(request.continue_final_message)
    options = ChatOptions(
        add_generation_prompt=_or(request.add_generation_prompt, not continues),
        continue_final_message=continues,
        variables=request.chat_template_kwargs or {},
    )
    return await encode_messages(
        request.messages, options, tokenizer, add_special_tokens=bool(request.add_special_tokens)
    )


async def encode_messages(
    messages: Sequence[Message],
    options: ChatOptions,
    tokenizer: Tokenizer,
    *,
    add_special_tokens: bool = False,
) -> tuple[int, ...]:
    """Return the tokens of messages that the chat template has written.

    Raises:
        InvalidRequest: the chat template refuses the messages.
    """

    def encode() -> tuple[int, ...]:
        text = tokenizer.render_chat([_for_template(message) for message in messages], options)
        return tokenizer.encode(text, add_special_tokens=add_special_tokens)

    return await _beside_the_loop(encode, sum(len(message.content) for message in messages))


async def encode_prompts(
    request: CompletionRequest, tokenizer: Tokenizer
) -> tuple[EncodedPrompt, ...]:
    """Return the prompts of a completion; token ids are taken as they are."""
    add_special_tokens = _or(request.add_special_tokens, True)

    def encode() -> tuple[EncodedPrompt, ...]:
        return tuple(
            _encode_prompt(prompt, tokenizer, add_special_tokens=add_special_tokens)
            for prompt in request.prompt
        )

    return await _beside_the_loop(encode, sum(map(len, request.prompt)))


async def encode_text(
    text: str, tokenizer: Tokenizer, *, add_special_tokens: bool
) -> tuple[int, ...]:
    """Return the tokens of a plain text."""

    def encode() -> tuple[int, ...]:
        return tokenizer.encode(text, add_special_tokens=add_special_tokens)

    return await _beside_the_loop(encode, len(text))


async def decode_tokens(token_ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """Return the text of token ids, special tokens included."""

    def decode() -> str:
        return tokenizer.decode(token_ids, skip_special_tokens=False)

    return await _beside_the_loop(decode, len(token_ids))


async def _beside_the_loop(work: Callable[[], T], length: int) -> T:
    return work() if length < LONG_TEXT else await asyncio.to_thread(work)


def _encode_prompt(
    prompt: Prompt, tokenizer: Tokenizer, *, add_special_tokens: bool
) -> EncodedPrompt:
    match prompt:
        case str(text):
            token_ids = tokenizer.encode(text, add_special_tokens=add_special_tokens)
            return EncodedPrompt(text=text, token_ids=token_ids)
        case token_ids:
            text = tokenizer.decode(token_ids, skip_special_tokens=False)
            return EncodedPrompt(text=text, token_ids=token_ids)


def _for_template(message: Message) -> ChatMessage:
    """OpenAI's `developer` is what templates know as `system`."""
    role = "system" if message.role == "developer" else message.role
    named = {"name": message.name} if message.name is not None else {}
    return {"role": role, "content": message.content, **named}


def _or(value: bool | None, default: bool) -> bool:
    return default if value is None else value
