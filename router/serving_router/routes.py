"""The router's paths: those that a replica answers, and the router's own."""

from __future__ import annotations

import string
from typing import Protocol
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from serving_contract.headers import REQUEST_ID
from serving_contract.openai_answers import ModelCard, ModelList
from serving_http.errors import ApiError
from serving_http.request_id import request_id
from serving_router import passage
from serving_router.call import Route, parse_call
from serving_router.client import Outgoing
from serving_router.load_table import LoadTable, ReplicaLoad
from serving_router.models import ServedModels
from serving_router.openapi import ANSWERS, ERRORS, request_body
from serving_router.proxy import Errand, ProxiedAnswer, Proxy


class RouterStatus(Protocol):
    """What the router's own paths tell."""

    @property
    def table(self) -> LoadTable: ...
    @property
    def is_alive(self) -> bool: ...
    @property
    def is_ready(self) -> bool: ...
    def exposition(self) -> bytes: ...


def proxied_routes(proxy: Proxy, models: ServedModels, session_header: str | None) -> APIRouter:
    """Return the paths that go to a replica.

    Args:
        proxy: carries them.
        models: which names are served.
        session_header: names a client's session; None without session affinity.
    """
    router = APIRouter(tags=["OpenAI"], responses=ERRORS)

    async def forward(request: Request) -> ProxiedAnswer:
        return ProxiedAnswer(proxy, Errand(outgoing=_outgoing(request, b"")))

    def forward_call(route: Route) -> None:
        async def forward_body(request: Request) -> ProxiedAnswer:
            body = await request.body()
            call = parse_call(route, body)
            if call.model is not None:
                models.check(call.model)
            errand = Errand(
                outgoing=_outgoing(request, body),
                call=call if route.generates else None,
                session=request.headers.get(session_header) if session_header else None,
            )
            return ProxiedAnswer(proxy, errand)

        router.add_api_route(
            route,
            forward_body,
            methods=["POST"],
            name=route.name.lower(),
            responses={200: {"model": ANSWERS[route]}},
            openapi_extra=request_body(route),
        )

    for route in Route:
        forward_call(route)
    router.add_api_route(
        "/v1/models", forward, name="list models", responses={200: {"model": ModelList}}
    )
    router.add_api_route(
        "/v1/models/{model:path}",
        forward,
        name="show a model",
        responses={200: {"model": ModelCard}},
    )
    return router


def _outgoing(request: Request, body: bytes) -> Outgoing:
    """Keep the path and query as the client wrote them; bytes that no URL may hold are quoted."""
    scope = request.scope
    query = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    headers = passage.to_replica(scope["headers"])
    headers += [(REQUEST_ID, request_id(request)), ("accept-encoding", "identity")]
    return Outgoing(
        method=request.method,
        target=quote(target, safe=string.printable),
        headers=tuple(headers),
        body=body,
    )


def own_routes(status: RouterStatus) -> APIRouter:
    """Return the paths that tell of the router itself."""
    router = APIRouter(tags=["router"])

    @router.head("/health", include_in_schema=False)
    @router.get("/health")
    async def health() -> Response:
        return _verdict(status.is_alive, "the replicas have not been listed yet")

    @router.head("/ready", include_in_schema=False)
    @router.get("/ready")
    async def ready() -> Response:
        return _verdict(status.is_ready, "no replica is ready")

    @router.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(status.exposition(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/v1/load")
    async def load() -> JSONResponse:
        return JSONResponse({"replicas": [_row(load) for load in status.table.loads()]})

    return router


def _verdict(is_fine: bool, reason: str) -> Response:
    if not is_fine:
        raise ApiError(503, reason, headers={"retry-after": "1"})
    return JSONResponse({"status": "ok"})


def _row(load: ReplicaLoad) -> dict[str, str | int | float | None]:
    return {
        "url": load.url,
        "pod": load.pod,
        "state": load.state,
        "epoch": load.epoch,
        "seq": load.seq,
        "report_age_seconds": load.report_age_seconds,
        "pending_tokens": load.pending_tokens,
        "reserved_tokens": load.reserved_tokens,
        "reservations": load.reservations,
        "in_flight": load.in_flight,
    }
