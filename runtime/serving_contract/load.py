"""The load report: what a replica says of itself, as JSON, one report a line on a watch stream.

`GET /v1/load` and the first line of a stream are whole; later lines list only what was accepted or
finished since the line before. Readers ignore fields they do not know, so that a replica and a
router one version apart understand each other.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving_contract.errors import MalformedReport

VERSION: Final = 1
MIN_PUSH_INTERVAL_S: Final = 0.020
MAX_PUSH_INTERVAL_S: Final = 1.0
STALE_AFTER_S: Final = 2.0
"""Without a report for this long a replica is stale: its number decays to the router's ledger."""
DEAD_AFTER_S: Final = 30.0
"""A replica that once reported and then sends nothing at all for this long is taken for dead."""
FINISHED_KEPT_S: Final = 10.0
"""A whole report lists reservations that finished within this time."""

Count = Annotated[int, Field(ge=0)]


class LoadReport(BaseModel):
    """One report. `running` and `waiting` count sequences; tokens are integers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Annotated[int, Field(ge=1)] = VERSION
    epoch: str
    seq: Count
    pending_prompt_tokens: Count
    pending_output_tokens: Count
    running: Count
    waiting: Count
    kv_blocks_used: Count
    kv_blocks_total: Count
    tokens_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    draining: bool
    accepted: tuple[str, ...] = ()
    finished: tuple[str, ...] = ()

    @property
    def pending_tokens(self) -> int:
        """Prompt and expected output that the replica still owes."""
        return self.pending_prompt_tokens + self.pending_output_tokens

    def to_line(self) -> bytes:
        """Serialise as one line of `application/x-ndjson`, newline included."""
        return self.model_dump_json().encode() + b"\n"


def parse_report(line: bytes) -> LoadReport:
    """Read one line.

    Raises:
        MalformedReport: not JSON, a field missing or of a wrong type, or a version that this
            side does not read (it reads its own and its neighbours').
    """
    try:
        report = LoadReport.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "report"
        raise MalformedReport(f"load report: {where}: {first['msg']}") from error
    if abs(report.version - VERSION) > 1:
        raise MalformedReport(
            f"load report: version {report.version} is more than one from {VERSION}"
        )
    return report
