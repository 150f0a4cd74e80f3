"""The life of a replica process: bind, load while `/health` answers, serve, drain, stop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.responses import Response

from serving_contract.openai import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from serving_http.answers import error_response
from serving_http.app import create_app
from serving_http.auth import ApiKeys
from serving_http.errors import ApiError
from serving_http.limits import Limits
from serving_http.serve import bind, serve
from serving_http.tls import Tls
from serving_runtime.config import EngineConfig, GenerationConfig
from serving_runtime.errors import InvalidRequest, Refused
from serving_runtime.executor import ProcessExecutor
from serving_runtime.model_files import SamplingDefaults, read_sampling_defaults
from serving_runtime.server.replica import Replica
from serving_runtime.server.routes import replica_routes
from serving_runtime.server.schemas import add_schemas
from serving_runtime.tokenizer import Tokenizer

REQUEST_MODELS: Final[list[type[BaseModel]]] = [
    ChatRequest,
    CompletionRequest,
    TokenizeRequest,
    DetokenizeRequest,
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How a replica is reached and how it ends.

    Attributes:
        listener: a socket that listens already, used instead of `host` and `port`; closed at the
            end.
        api_keys: None leaves every path open.
        drain_timeout_s: how long open answers may take after the first signal.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    listener: socket.socket | None = None
    api_keys: ApiKeys | None = None
    limits: Limits = field(default_factory=Limits)
    drain_timeout_s: float = 30.0
    tls: Tls | None = None


async def run_replica(config: EngineConfig, settings: ServerSettings) -> None:
    """Serve until a signal has drained the replica.

    Raises:
        Refused: the model or the port cannot be had; the message is one line.
        EngineStopped: the worker died; open streams have ended with the typed error.
    """
    config.check()
    with _listener(settings) as listener:
        replica = Replica(
            config=config,
            executor=ProcessExecutor(config),
            tokenizer=await asyncio.to_thread(Tokenizer, config.model),
            sampling_defaults=_sampling_defaults(config),
        )
        await serve_replica(replica, listener, settings)


async def serve_replica(
    replica: Replica, listener: socket.socket, settings: ServerSettings
) -> None:
    """Serve a replica on a socket that listens; see `run_replica`."""

    async def drain() -> None:
        await replica.drain(settings.drain_timeout_s)

    app = replica_app(replica, settings.api_keys)
    serving = asyncio.ensure_future(
        serve(
            app,
            sockets=[listener],
            limits=settings.limits,
            tls=settings.tls,
            on_stopping=drain,
        )
    )
    running = asyncio.ensure_future(replica.run())
    try:
        await asyncio.wait((serving, running), return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            # The engine is gone; its readers are about to be told.
            await replica.drain(0)
    finally:
        for task in (serving, running):
            task.cancel()
        await asyncio.wait((serving, running))
    for task in (serving, running):
        if not task.cancelled():
            task.result()


def replica_app(replica: Replica, api_keys: ApiKeys | None) -> FastAPI:
    """Return the application with every endpoint of a replica."""
    app = create_app(title="ascend-serving replica", lifespan=_no_lifespan, api_keys=api_keys)
    app.add_exception_handler(InvalidRequest, _on_invalid_request)
    app.include_router(replica_routes(replica))
    add_schemas(app, REQUEST_MODELS)
    return app


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidRequest)
    return error_response(ApiError(400, str(error), param=error.param, code=error.code))


@asynccontextmanager
async def _no_lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The replica outlives its application, so it is not the application's to start."""
    yield


def _listener(settings: ServerSettings) -> socket.socket:
    if settings.listener is not None:
        return settings.listener
    try:
        return bind(settings.host, settings.port)
    except OSError as error:
        raise Refused(
            f"--host {settings.host} --port {settings.port}: {error.strerror or error}"
        ) from error


def _sampling_defaults(config: EngineConfig) -> SamplingDefaults:
    match config.generation_config:
        case GenerationConfig.AUTO:
            return read_sampling_defaults(config.model)
        case GenerationConfig.NONE:
            return SamplingDefaults()
