"""`ascend-serving`: reads the command line, runs one command, turns its end into an exit code.

0 done or drained; 2 bad flags, model folder or port; 1 everything else. Errors are one line.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

from serving_cli import flags, generate, logs, plan, tiny_model
from serving_cli.errors import CommandFailed, UsageError
from serving_cli.flags import Given, Parser

PROGRAM: Final = "ascend-serving"

_log = logging.getLogger(__name__)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    given = vars(build_parser().parse_args(arguments))
    command: Callable[[Given], int] = given.pop("command")
    name = f"{PROGRAM} {given.pop('command_name')}"
    try:
        return command(given)
    except CommandFailed as error:
        return _failed(name, error, error.exit_code)
    except KeyboardInterrupt:
        return _failed(name, "interrupted", 1)
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - a bug ends in one line too; debug shows where
        return _failed(name, f"{type(error).__name__}: {error}", 1)


def _failed(name: str, error: object, exit_code: int) -> int:
    _log.debug("%s failed", name, exc_info=True)
    print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
    return exit_code


def build_parser() -> Parser:
    """Return the whole command line's parser."""
    parser = Parser(prog=PROGRAM, description="Serve large language models, dp x tp.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command_name")

    def add(name: str, help_text: str, command: Callable[[Given], int]) -> Parser:
        added: Parser = commands.add_parser(name, help=help_text, description=help_text)
        added.set_defaults(command=command)
        return added

    _add_serve(add("serve", "replicas and router on this machine", _serve))
    _add_replica(add("replica", "one replica: what a replica pod runs", _replica))
    _add_router(add("router", "the router: what a router pod runs", _router))
    _add_generate(add("generate", "offline batch over a file of prompts", _generate))
    _add_operator(add("operator", "the operator: what its pod runs", _operator))
    plan.add_flags(add("plan", "show what the operator would create", _plan))
    tiny_model.add_flags(add("tiny-model", "write a tiny random model to try", _tiny_model))
    return parser


def _version() -> str:
    return version(PROGRAM)


def _add_serve(parser: Parser) -> None:
    flags.add_model(parser)
    parser.add_argument(
        "-f", "--file", type=Path, metavar="FILE", help="a ServingDeployment instead of MODEL"
    )
    flags.add_served_name(parser)
    flags.add_topology(parser, data_parallel=True)
    flags.add_engine(parser)
    flags.add_server(parser)
    flags.add_routing(parser)
    flags.add_logging(parser)


def _add_replica(parser: Parser) -> None:
    flags.add_model(parser)
    flags.add_served_name(parser)
    flags.add_topology(parser, data_parallel=False)
    flags.add_engine(parser)
    flags.add_server(parser)
    flags.add_logging(parser)


def _add_router(parser: Parser) -> None:
    flags.add_discovery(parser)
    flags.add_served_name(parser)
    flags.add_server(parser)
    flags.add_routing(parser)
    flags.add_logging(parser)


def _add_generate(parser: Parser) -> None:
    flags.add_model(parser)
    generate.add_flags(parser)
    flags.add_topology(parser, data_parallel=True)
    flags.add_engine(parser)
    flags.add_logging(parser)


def _add_operator(parser: Parser) -> None:
    flags.add_operator(parser)
    flags.add_images(parser)
    flags.add_logging(parser)


def _serve(given: Given) -> int:
    _configure_logs(given)
    from serving_cli import serve

    return serve.run(given)


def _replica(given: Given) -> int:
    _configure_logs(given)
    from serving_cli import replica

    return replica.run(given)


def _router(given: Given) -> int:
    _configure_logs(given)
    from serving_cli import router

    return router.run(given)


def _operator(given: Given) -> int:
    level, form = given["log_level"], given["log_format"]
    logs.configure(level=str(level), format=str(form), with_request_ids=False)
    from serving_cli import operator

    return operator.run(given)


def _generate(given: Given) -> int:
    _configure_logs(given)
    return generate.run(given)


def _plan(given: Given) -> int:
    file = given.pop("file")
    assert isinstance(file, Path)
    return plan.run(file, given)


def _tiny_model(given: Given) -> int:
    folder = given["dir"]
    assert isinstance(folder, Path)
    try:
        return tiny_model.run(folder)
    except ImportError as error:
        raise UsageError(f"tiny-model needs ascend-serving[runtime]: {error}") from error


def _configure_logs(given: Given) -> None:
    level, form = given["log_level"], given["log_format"]
    assert isinstance(level, str)
    assert isinstance(form, str)
    logs.configure(level=level, format=form)
