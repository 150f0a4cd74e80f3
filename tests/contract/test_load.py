from __future__ import annotations

import json

import pytest

from serving_contract.errors import MalformedReport
from serving_contract.load import VERSION, LoadReport, parse_report

WIRE = (
    b'{"version":1,"epoch":"e1","seq":3,"pending_prompt_tokens":10,"pending_output_tokens":5,'
    b'"running":1,"waiting":2,"kv_blocks_used":4,"kv_blocks_total":8,"tokens_per_second":1.5,'
    b'"draining":false,"accepted":["a"],"finished":["b","c"]}\n'
)


def test_wire_bytes_are_pinned() -> None:
    assert parse_report(WIRE).to_line() == WIRE


def test_pending_tokens_are_prompt_and_output() -> None:
    assert parse_report(WIRE).pending_tokens == 15


def test_field_of_a_later_version_is_ignored() -> None:
    line = WIRE.replace(b'"seq":3', b'"seq":3,"new":true')
    assert parse_report(line) == parse_report(WIRE)


def test_neighbouring_version_is_read_and_a_farther_one_is_not() -> None:
    assert parse_report(_with(version=VERSION + 1)).version == VERSION + 1
    with pytest.raises(MalformedReport, match="more than one from"):
        parse_report(_with(version=VERSION + 2))


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b"", "report"),
        (b"[]", "report"),
        (b"{}", "epoch"),
        (WIRE.replace(b'"running":1', b'"running":-1'), "running"),
        (WIRE.replace(b'"accepted":["a"]', b'"accepted":[7]'), "accepted.0"),
        (WIRE.replace(b"1.5", b"NaN"), "tokens_per_second"),
    ],
)
def test_malformed_report_names_its_field(line: bytes, field: str) -> None:
    with pytest.raises(MalformedReport, match=rf"load report: {field}"):
        parse_report(line)


def _with(**changes: int) -> bytes:
    return json.dumps(json.loads(WIRE) | changes).encode()


def test_reports_are_values() -> None:
    assert isinstance(hash(parse_report(WIRE)), int)
    assert LoadReport.model_validate_json(WIRE) == parse_report(WIRE)
