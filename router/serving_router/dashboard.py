"""The page at `/`: one HTML file that reads `/v1/load` and `/metrics` in the browser."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

_POLICY: Final = (
    "default-src 'none'; connect-src 'self'; img-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


def dashboard() -> APIRouter:
    """Return the route; the page itself asks for the API key if there is one."""
    page = files("serving_router").joinpath("dashboard.html").read_text(encoding="utf-8")
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def show() -> HTMLResponse:
        return HTMLResponse(page, headers={"content-security-policy": _POLICY})

    return router
