"""The process of one local replica: `python -m serving_cli.replica_process FD`.

FD is its listening socket; the order comes on standard input, which then stays open as long as the
parent lives.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from dataclasses import replace

from serving_cli import logs
from serving_cli.errors import CommandFailed
from serving_cli.local_replica import ReplicaOrder
from serving_http.limits import Limits
from serving_runtime.lifeline import die_with_parent


def main() -> int:
    """Serve until SIGTERM; the last line on standard error says why it failed."""
    die_with_parent(os.getppid())
    # The parent is this same program; the pipe between the two is nobody else's.
    order = pickle.load(sys.stdin.buffer)  # noqa: S301
    assert isinstance(order, ReplicaOrder)
    logs.configure(level=order.log_level, format=order.log_format, replica=order.index)
    from serving_cli import replica
    from serving_runtime.server import ServerSettings

    settings = ServerSettings(
        listener=socket.socket(fileno=int(sys.argv[1])),
        limits=replace(Limits(), max_body_bytes=order.max_body_bytes),
        drain_timeout_s=order.drain_timeout_s,
    )
    try:
        return replica.serve(order.config, settings)
    except CommandFailed as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
