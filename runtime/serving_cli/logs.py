"""Log lines as text or JSON, each with the id of its request."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")


def configure(*, level: str, format: str, replica: int | None = None) -> None:  # noqa: A002
    """Send all log lines to stderr; those of a local replica carry its index."""
    from serving_http.request_id import RequestIdFilter

    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(_JsonFormatter(replica) if format == "json" else _TextFormatter(replica))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        for chatty in ("uvicorn", "asyncio", "transformers", "filelock", "httpx"):
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
        if identity := getattr(record, "request_id", ""):
            line["request_id"] = identity
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
