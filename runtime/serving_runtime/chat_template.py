"""The model's chat template: messages to text.

Templates are Jinja in the dialect of transformers (its filters, functions and tags), rendered here
because importing transformers takes seconds and brings torch into the server's process. A template
comes with the weights, so it is run in a sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import JsonValue

from serving_runtime.errors import InvalidModel, InvalidRequest

ChatMessage = Mapping[str, str]
"""`role`, `content` and possibly `name`."""


class _GenerationTag(Extension):
    """`{% generation %}` marks training targets; for inference its body counts as it is."""

    tags = {"generation"}  # noqa: RUF012 - so declared in the base class

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """One compiled template.

    Args:
        source: the template's text.
        special_tokens: such as `bos_token`; visible to the template by name.

    Raises:
        InvalidModel: the template does not compile.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self._template = _compile(source)
        self._special_tokens = dict(special_tokens)

    def render(
        self,
        messages: Sequence[ChatMessage],
        *,
        add_generation_prompt: bool,
        variables: Mapping[str, JsonValue],
    ) -> str:
        """Write the messages as the model was taught to read them.

        Raises:
            InvalidRequest: the template refuses the messages or fails on them.
        """
        context = {
            **self._special_tokens,
            **variables,
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return self._template.render(context)
        # A template is a program: with unusual messages it can fail in any way.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InvalidRequest(
                f"messages: the chat template refuses them: {reason}", param="messages"
            ) from error


def continue_final_message(text: str, content: str) -> str:
    """Cut what a template wrote behind the last message, so that the model goes on with it.

    Raises:
        InvalidRequest: the template changed the message beyond recognition.
    """
    start = text.rfind(content.strip())
    if start < 0:
        raise InvalidRequest(
            "continue_final_message: the chat template does not contain the last message as given",
            param="continue_final_message",
        )
    # Templates often strip what they are given; white space that survived is the message's own.
    whole = content.lstrip()
    kept = whole if text.startswith(whole, start) else content.strip()
    return text[: start + len(kept)]


def _compile(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise InvalidModel(f"the chat template does not compile: {error}") from error


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)


def _to_json(
    value: JsonValue,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML characters, which no model was taught."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
