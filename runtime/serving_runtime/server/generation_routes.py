"""The two endpoints that generate."""

from __future__ import annotations

import secrets
import time
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving_contract.headers import EXPECTED_TOKENS, RESERVATION
from serving_contract.openai import ChatRequest, CompletionRequest, GenerationRequest
from serving_http.body import read_json
from serving_runtime.generation import SequenceSpec, Submission
from serving_runtime.server.answer import Answer, AnswerForm
from serving_runtime.server.chat import ChatWriter
from serving_runtime.server.completions import CompletionWriter
from serving_runtime.server.prompts import encode_chat, encode_prompts
from serving_runtime.server.replica import Replica
from serving_runtime.server.schemas import json_body
from serving_runtime.server.sequences import ModelTraits, chat_sequences, completion_sequences

MAX_RESERVATION_LENGTH: Final = 128
MAX_EXPECTED_DIGITS: Final = 9


def add_generation(routes: APIRouter, replica: Replica) -> None:
    """Add chat and completions."""

    @routes.post("/v1/chat/completions", openapi_extra=json_body(ChatRequest))
    async def chat_completions(request: Request) -> Response:
        """Answer a chat."""
        body = await read_json(request, ChatRequest)
        replica.check_model(body.model)
        replica.engine_for_new_work()
        prompt = await encode_chat(body, replica.tokenizer)
        specs = chat_sequences(body, prompt, traits=traits_of(replica), seed=_seed(body))
        writer = ChatWriter(body, prompt, replica.tokenizer, int(time.time()))
        submission = _submission(request, specs, prompt_tokens=len(prompt))
        return Answer(replica, submission, writer, _form(body))

    @routes.post("/v1/completions", openapi_extra=json_body(CompletionRequest))
    async def completions(request: Request) -> Response:
        """Continue prompts."""
        body = await read_json(request, CompletionRequest)
        replica.check_model(body.model)
        replica.engine_for_new_work()
        prompts = await encode_prompts(body, replica.tokenizer)
        token_ids = tuple(prompt.token_ids for prompt in prompts)
        specs = completion_sequences(body, token_ids, traits=traits_of(replica), seed=_seed(body))
        writer = CompletionWriter(body, prompts, replica.tokenizer, int(time.time()))
        submission = _submission(request, specs, prompt_tokens=sum(map(len, token_ids)))
        return Answer(replica, submission, writer, _form(body))


def traits_of(replica: Replica) -> ModelTraits:
    """Return what the loaded model says about requests.

    Raises:
        ApiError: 503, the model is not loaded yet.
    """
    facts = replica.engine.facts
    return ModelTraits(
        max_model_len=facts.max_model_len,
        vocab_size=facts.vocab_size,
        eos_token_ids=replica.tokenizer.eos_token_ids,
        defaults=replica.sampling_defaults,
    )


def _seed(request: GenerationRequest) -> int:
    return secrets.randbits(63) if request.seed is None else request.seed


def _form(request: GenerationRequest) -> AnswerForm:
    return AnswerForm(stream=bool(request.stream), include_usage=request.include_usage)


def _submission(
    request: Request, sequences: tuple[SequenceSpec, ...], *, prompt_tokens: int
) -> Submission:
    return Submission(
        sequences=sequences,
        prompt_tokens=prompt_tokens,
        expected_tokens=_expected_tokens(request.headers.get(EXPECTED_TOKENS, "")),
        reservation=_reservation(request.headers.get(RESERVATION, "")),
    )


def _expected_tokens(text: str) -> int | None:
    """Read the router's number; None, the engine's own estimate, if it is no sensible one."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= MAX_EXPECTED_DIGITS
    return int(text) if is_number and int(text) > 0 else None


def _reservation(text: str) -> str | None:
    is_id = 0 < len(text) <= MAX_RESERVATION_LENGTH and text.isascii() and text.isprintable()
    return text if is_id else None
