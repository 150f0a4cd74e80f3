"""The process of one local replica: `python -m serving_cli.replica_process FD PARENT_PID`.

FD is its listening socket; the order comes on standard input.
"""

from __future__ import annotations

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
    fd, parent_pid = (int(argument) for argument in sys.argv[1:])
    die_with_parent(parent_pid)
    # The parent is this same program; the pipe between the two is nobody else's.
    order = pickle.load(sys.stdin.buffer)  # noqa: S301
    assert isinstance(order, ReplicaOrder)
    logs.configure(level=order.log_level, format=order.log_format, replica=order.index)
    from serving_cli import replica
    from serving_runtime.server import ServerSettings

    settings = ServerSettings(
        listener=socket.socket(fileno=fd),
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
