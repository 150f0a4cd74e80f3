"""`ascend-serving generate`: an offline batch over the same replicas and the same router."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving_cli.errors import CommandFailed, first_cause
from serving_cli.flags import Given, Parser

if TYPE_CHECKING:
    from serving_cli.batch_journal import BatchRequest, Journal
    from serving_cli.local_replica import ReplicaOrder

UNLIMITED: Final = sys.maxsize


def add_flags(parser: Parser) -> None:
    """Flags of this command."""
    parser.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSON lines, each with `prompt` or `messages` and any sampling field",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSON lines in the order of the input; a cut-off run goes on where it was",
    )


def run(given: Given) -> int:
    """Generate all answers.

    Raises:
        UsageError: a wrong flag, input line or model.
        CommandFailed: a replica failed to start, or requests ended in an error.
    """
    from serving_cli.batch_journal import Journal, read_requests
    from serving_cli.orders import replica_orders

    source, output = given["input"], given["output"]
    assert isinstance(source, Path)
    assert isinstance(output, Path)
    orders = replica_orders(given)
    requests = read_requests(source)
    with Journal(output, requests) as journal:
        _generate(orders, requests, journal)
        journal.finish()
    if journal.num_errors:
        failed = f"{journal.num_errors} of {len(requests)} requests failed"
        raise CommandFailed(f"{failed}; see `error` in {output}")
    return 0


def _generate(
    orders: Sequence[ReplicaOrder], requests: Sequence[BatchRequest], journal: Journal
) -> None:
    todo = [request for request in requests if not journal.is_done(request)]
    if not todo:
        return
    try:
        asyncio.run(_send(orders, todo, journal, total=len(requests)))
    except BaseExceptionGroup as failures:
        cause = first_cause(failures)
        raise _stopped(str(cause), journal, total=len(requests)) from failures
    except KeyboardInterrupt:
        raise _stopped("stopped", journal, total=len(requests)) from None


def _stopped(why: str, journal: Journal, *, total: int) -> CommandFailed:
    done = f"{journal.num_done} of {total} requests are done: run it again to go on"
    return CommandFailed(f"{why}; {done}")


async def _send(
    orders: Sequence[ReplicaOrder],
    todo: Sequence[BatchRequest],
    journal: Journal,
    *,
    total: int,
) -> None:
    from tqdm import tqdm

    from serving_cli.batch_client import send_all
    from serving_cli.batch_journal import BatchResult
    from serving_cli.local_service import local_service

    config = orders[0].config
    async with local_service(orders, max_pending_tokens_per_replica=UNLIMITED) as url:
        with tqdm(total=total, initial=journal.num_done, unit="request") as progress:

            def on_result(result: BatchResult) -> None:
                journal.add(result)
                progress.update()

            await send_all(
                todo,
                url=url,
                model=config.served_name,
                concurrency=len(orders) * config.max_num_seqs,
                on_result=on_result,
            )
