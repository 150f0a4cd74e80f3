"""Log lines as text or JSON, each with the id of its request."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
_FIELDS = ("request_id", "namespace", "sdep", "reason")
"""Of a record, shown by the JSON form as fields of their own."""


def configure(
    *,
    level: str,
    format: str,  # noqa: A002
    replica: int | None = None,
    with_request_ids: bool = True,
) -> None:
    """Send all log lines to stderr; those of a local replica carry its index.

    Request ids need the HTTP packages, which the operator's image does not hold.
    """
    handler = logging.StreamHandler(sys.stderr)
    if with_request_ids:
        from serving_http.request_id import RequestIdFilter

        handler.addFilter(RequestIdFilter())
    handler.setFormatter(_JsonFormatter(replica) if format == "json" else _TextFormatter(replica))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        for chatty in ("uvicorn", "asyncio", "transformers", "filelock", "httpx", "kopf"):
            logging.getLogger(chatty).setLevel(logging.WARNING)


class _TextFormatter(logging.Formatter):
    def __init__(self, replica: int | None) -> None:
        who = "" if replica is None else f" replica {replica}"
        super().__init__(f"%(asctime)s %(levelname)-7s{who} %(name)s%(request)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        identity = getattr(record, "request_id", "")
        record.request = f" [{identity}]" if identity else ""
        return super().format(record)


class _JsonFormatter(logging.Formatter):
    def __init__(self, replica: int | None) -> None:
        super().__init__()
        self._origin = {} if replica is None else {"replica": replica}

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._origin,
        }
        for field in _FIELDS:
            if value := getattr(record, field, ""):
                line[field] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
