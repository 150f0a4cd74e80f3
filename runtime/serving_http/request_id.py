"""The id of a request: the client's own if it is fit for a log line, else a new one."""

from __future__ import annotations

import logging
import uuid
from contextvars import ContextVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving_contract.headers import MAX_REQUEST_ID_LENGTH, REQUEST_ID
from serving_http.answers import send_error
from serving_http.errors import ApiError

_HEADER = REQUEST_ID.encode()
_VISIBLE_ASCII = frozenset(range(0x21, 0x7F))

_log = logging.getLogger(__name__)
_current: ContextVar[str] = ContextVar("request_id", default="")


def request_id(request: Request) -> str:
    """Return the id of this request."""
    identity: str = request.scope["request_id"]
    return identity


class RequestIdFilter(logging.Filter):
    """Gives every log record the id of the request that it belongs to, or an empty string."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add `request_id` to the record."""
        record.request_id = _current.get()
        return True


class AssignRequestId:
    """ASGI middleware: the id into the scope, the log lines and the answer's headers.

    It is also where a bug ends: logged with its id, and answered with it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, identity=_identity_of(scope))
        scope["request_id"] = answer.identity
        token = _current.set(answer.identity)
        try:
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            _log.debug("%s %s: the client hung up", scope["method"], scope["path"])
        except Exception:  # whatever was not foreseen: the traceback is for us, not the client
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if answer.begun:
                raise
            await send_error(
                ApiError(500, "the server made a mistake; its log says more"), answer.send
            )
        finally:
            _current.reset(token)


class _Answer:
    """Adds the id to an answer's head and knows whether the answer has begun."""

    def __init__(self, send: Send, *, identity: str) -> None:
        self._send = send
        self.identity = identity
        self.begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            others = [pair for pair in message.get("headers", []) if pair[0] != _HEADER]
            message = {**message, "headers": [*others, (_HEADER, self.identity.encode())]}
        await self._send(message)


def _identity_of(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == _HEADER and 0 < len(value) <= MAX_REQUEST_ID_LENGTH:
            if _VISIBLE_ASCII.issuperset(value):
                return str(value, "ascii")
            break
    return uuid.uuid4().hex
