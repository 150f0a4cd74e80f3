from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_cli.batch_journal import BatchRequest, BatchResult, Journal, read_requests
from serving_cli.errors import CommandFailed


def requests_of(folder: Path, prompts: list[str]) -> list[BatchRequest]:
    file = folder / "in.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return read_requests(file)


def result_of(request: BatchRequest, text: str = "x") -> BatchResult:
    return BatchResult(index=request.index, digest=request.digest, response={"text": text})


def test_path_follows_the_kind_of_prompt(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"prompt": "a"}\n{"messages": []}\n')
    paths = [request.path for request in read_requests(file)]
    assert paths == ["/v1/completions", "/v1/chat/completions"]


def test_output_has_the_order_of_the_input(tmp_path: Path) -> None:
    requests = requests_of(tmp_path, ["a", "b", "c"])
    output = tmp_path / "out.jsonl"
    with Journal(output, requests) as journal:
        for request in (requests[2], requests[0], requests[1]):
            journal.add(result_of(request))
        journal.finish()
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_cut_off_run_keeps_what_was_done(tmp_path: Path) -> None:
    requests = requests_of(tmp_path, ["a", "b"])
    with Journal(tmp_path / "out.jsonl", requests) as journal:
        journal.add(result_of(requests[1]))
    with Journal(tmp_path / "out.jsonl", requests) as journal:
        assert [journal.is_done(request) for request in requests] == [False, True]


def test_request_that_changed_is_done_anew(tmp_path: Path) -> None:
    requests = requests_of(tmp_path, ["a", "b"])
    with Journal(tmp_path / "out.jsonl", requests) as journal:
        for request in requests:
            journal.add(result_of(request))
    changed = requests_of(tmp_path, ["a", "other"])
    with Journal(tmp_path / "out.jsonl", changed) as journal:
        assert [journal.is_done(request) for request in changed] == [True, False]


@settings(max_examples=40)
@given(cut=st.integers(min_value=0, max_value=400), count=st.integers(1, 6))
def test_torn_journal_loses_at_most_what_was_torn(
    tmp_path_factory: pytest.TempPathFactory, cut: int, count: int
) -> None:
    folder = tmp_path_factory.mktemp("batch")
    requests = requests_of(folder, [f"prompt {i}" for i in range(count)])
    with Journal(folder / "out.jsonl", requests) as journal:
        for request in requests:
            journal.add(result_of(request))
    partial = folder / "out.jsonl.partial"
    whole = partial.read_bytes()[:cut]
    partial.write_bytes(whole)
    with Journal(folder / "out.jsonl", requests) as journal:
        assert journal.num_done == whole.count(b"\n")
        for request in requests:
            if not journal.is_done(request):
                journal.add(result_of(request))
        journal.finish()
    assert len((folder / "out.jsonl").read_text().splitlines()) == count


def test_errors_are_counted_over_runs(tmp_path: Path) -> None:
    requests = requests_of(tmp_path, ["a"])
    failed = BatchResult(index=0, digest=requests[0].digest, error={"message": "no"})
    with Journal(tmp_path / "out.jsonl", requests) as journal:
        journal.add(failed)
    with Journal(tmp_path / "out.jsonl", requests) as journal:
        assert journal.num_errors == 1


def test_full_disk_at_the_end_loses_no_answer(tmp_path: Path) -> None:
    requests = requests_of(tmp_path, ["a"])
    output = tmp_path / "out.jsonl"
    (tmp_path / "out.jsonl.writing").symlink_to("/dev/full")
    with Journal(output, requests) as journal:
        journal.add(result_of(requests[0]))
        with pytest.raises(CommandFailed, match=r"No space left .* run it again"):
            journal.finish()
    with Journal(output, requests) as journal:
        assert journal.num_done == 1
        journal.finish()
    assert len(output.read_text().splitlines()) == 1
