"""The endpoints of a replica."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from serving_contract.openai import DetokenizeRequest, TokenizeRequest
from serving_contract.openai_answers import DetokenizedText, ModelCard, ModelList, Tokens
from serving_http.body import read_json
from serving_http.errors import ApiError
from serving_runtime.server.answer import Lines
from serving_runtime.server.generation_routes import add_generation, traits_of
from serving_runtime.server.prompts import decode_tokens, encode_messages, encode_text
from serving_runtime.server.replica import Replica
from serving_runtime.server.schemas import json_body
from serving_runtime.server.sequences import check_token_ids
from serving_runtime.tokenizer import ChatOptions


def replica_routes(replica: Replica) -> APIRouter:
    """Return every endpoint of a replica."""
    routes = APIRouter()
    _add_state(routes, replica)
    _add_load(routes, replica)
    _add_models(routes, replica)
    _add_tokens(routes, replica)
    add_generation(routes, replica)
    return routes


def _add_state(routes: APIRouter, replica: Replica) -> None:
    @routes.head("/health", include_in_schema=False)
    @routes.get("/health")
    async def health() -> Response:
        """Alive: 503 when the worker is gone or a step has hung."""
        return _state(replica.is_alive, "alive")

    @routes.head("/ready", include_in_schema=False)
    @routes.get("/ready")
    async def ready() -> Response:
        """Whether requests are accepted: 503 while loading and while draining."""
        return _state(replica.is_ready, "ready")

    @routes.get("/metrics")
    async def metrics() -> Response:
        """Return Prometheus metrics."""
        return Response(replica.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


def _add_load(routes: APIRouter, replica: Replica) -> None:
    @routes.get("/v1/load")
    async def load() -> Response:
        """Return one whole load report."""
        return Response(replica.board.whole().to_line(), media_type="application/json")

    @routes.get("/v1/load/watch")
    async def watch() -> Response:
        """Stream load reports, one a line; 503 until the model is loaded."""
        replica.check_loaded()
        return Lines(_load_lines(replica), media_type="application/x-ndjson")


def _add_models(routes: APIRouter, replica: Replica) -> None:
    @routes.get("/v1/models")
    async def models() -> Response:
        """Return the one model that is served."""
        return _json(ModelList(object="list", data=[_model_card(replica)]).to_json())

    @routes.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        """Return the model, if it is the one that is served."""
        replica.check_model(name)
        return _json(_model_card(replica).to_json())


def _add_tokens(routes: APIRouter, replica: Replica) -> None:
    @routes.post("/tokenize", openapi_extra=json_body(TokenizeRequest))
    async def tokenize(request: Request) -> Response:
        """Return the tokens of a prompt or of messages."""
        body = await read_json(request, TokenizeRequest)
        replica.check_model(body.model)
        max_model_len = replica.engine.facts.max_model_len
        token_ids = await _tokens_of(body, replica)
        answer = Tokens(tokens=list(token_ids), count=len(token_ids), max_model_len=max_model_len)
        return _json(answer.to_json())

    @routes.post("/detokenize", openapi_extra=json_body(DetokenizeRequest))
    async def detokenize(request: Request) -> Response:
        """Return the text of token ids."""
        body = await read_json(request, DetokenizeRequest)
        replica.check_model(body.model)
        check_token_ids(tuple(body.tokens), "tokens", traits_of(replica))
        text = await decode_tokens(body.tokens, replica.tokenizer)
        return _json(DetokenizedText(prompt=text).to_json())


def _state(is_good: bool, what: str) -> Response:
    if not is_good:
        raise ApiError(503, f"the replica is not {what}")
    return _json(b'{"status":"ok"}')


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


async def _load_lines(replica: Replica) -> AsyncGenerator[bytes, None]:
    async with aclosing(replica.board.watch()) as reports:
        async for report in reports:
            yield report.to_line()


def _model_card(replica: Replica) -> ModelCard:
    return ModelCard(
        id=replica.served_name,
        object="model",
        created=replica.created,
        owned_by="ascend-serving",
        max_model_len=replica.engine.facts.max_model_len,
    )


async def _tokens_of(body: TokenizeRequest, replica: Replica) -> tuple[int, ...]:
    if body.messages is not None:
        options = ChatOptions(add_generation_prompt=body.add_generation_prompt is not False)
        return await encode_messages(
            body.messages,
            options,
            replica.tokenizer,
            add_special_tokens=bool(body.add_special_tokens),
        )
    assert body.prompt is not None
    return await encode_text(
        body.prompt, replica.tokenizer, add_special_tokens=body.add_special_tokens is not False
    )
