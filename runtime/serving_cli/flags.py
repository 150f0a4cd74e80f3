"""Flags that several commands share.

Absent flags leave no trace in the namespace: defaults live in the dataclasses that the flags fill,
once, and `serve -f` can tell what was given.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from serving_cli import logs
from serving_contract.deployment import Policy
from serving_contract.errors import InvalidTopology
from serving_contract.topology import Topology, parse_devices
from serving_runtime.config import DeviceKind, Dtype, GenerationConfig

Given = dict[str, object]
"""Flags that were given, by the names of what they fill."""

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_MAX_LABEL_LENGTH: Final = 63


class Parser(argparse.ArgumentParser):
    """One line and exit 2 for a wrong flag; no abbreviations; absent flags are absent."""

    def __init__(
        self,
        *,
        prog: str | None = None,
        description: str | None = None,
        help: str | None = None,  # noqa: A002 - argparse passes it on to sub-commands
        add_help: bool = True,
    ) -> None:
        super().__init__(
            prog=prog,
            description=description or help,
            add_help=add_help,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )

    def error(self, message: str) -> NoReturn:
        """Print the complaint without the usage."""
        self.exit(2, f"{self.prog}: {message}\n")


def at_least(least: int) -> Callable[[str], int]:
    """Return a reader of integers that refuses those below `least`."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {least}")
        return int(text)

    return read


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0..65535)")
    return int(text)


def _label(text: str) -> str:
    if len(text) > _MAX_LABEL_LENGTH or not _LABEL.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a DNS label of at most {_MAX_LABEL_LENGTH} characters"
        )
    return text


def _fraction(text: str) -> float:
    try:
        fraction = float(text)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most 1")
    return fraction


def _devices(text: str) -> tuple[int, ...]:
    try:
        return parse_devices(text)
    except InvalidTopology as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--devices: ")) from None


def add_model(parser: Parser) -> None:
    """MODEL, positional or as `--model`."""
    parser.add_argument("positional_model", metavar="MODEL", nargs="?", help="model folder")
    parser.add_argument("--model", metavar="MODEL", help="the same as a flag")


def add_served_name(parser: Parser) -> None:
    """`--served-model-name`."""
    parser.add_argument(
        "--served-model-name", metavar="NAME", dest="served_name", help="name in the OpenAI API"
    )


def add_topology(parser: Parser, *, data_parallel: bool) -> None:
    """`--devices`, `--tp` and, unless it is one replica, `--dp`."""
    group = parser.add_argument_group("topology")
    add_devices(group)
    if data_parallel:
        group.add_argument(
            "--data-parallel-size",
            "--dp",
            dest="dp",
            type=at_least(0),
            metavar="N",
            help="replicas (default 1)",
        )
    group.add_argument(
        "--tensor-parallel-size",
        "--tp",
        dest="tp",
        type=at_least(0),
        metavar="N",
        help="devices of one replica (default 1)",
    )


def add_devices(group: argparse._ActionsContainer) -> None:
    """`--devices`."""
    group.add_argument(
        "--devices",
        type=_devices,
        metavar="LIST",
        help="device ids such as 0,1,4-7 (default: the first dp x tp; on CPU only their count)",
    )


def add_images(parser: Parser) -> None:
    """What the operator adds to a ServingDeployment."""
    group = parser.add_argument_group("children")
    group.add_argument("--engine-image", metavar="IMAGE", help="of replicas with devices")
    group.add_argument("--engine-cpu-image", metavar="IMAGE", help="of replicas without")
    group.add_argument("--router-image", metavar="IMAGE", help="of routers")
    group.add_argument(
        "--network-policy",
        action="store_true",
        help="only a ServingDeployment's routers may reach its replicas",
    )


def add_operator(parser: Parser) -> None:
    """Which namespaces an operator serves, and where it answers probes."""
    scope = parser.add_argument_group("operator")
    scope.add_argument(
        "--namespace",
        action="append",
        dest="namespaces",
        metavar="NS",
        help="a namespace to serve; repeatable",
    )
    scope.add_argument("--all-namespaces", action="store_true", help="serve every namespace")
    scope.add_argument("--host", metavar="ADDRESS", help="of the probes; default 0.0.0.0")
    scope.add_argument("--port", type=_port, metavar="N", help="default 8080")


def add_engine(parser: Parser) -> None:
    """Flags of the engine, named as in the field."""
    group = parser.add_argument_group("engine")
    group.add_argument("--device", choices=_values(DeviceKind), help="backend (default auto)")
    group.add_argument("--dtype", choices=_values(Dtype), help="type of weights (default auto)")
    group.add_argument(
        "--max-model-len",
        type=at_least(1),
        metavar="TOKENS",
        help="longest sequence (default: the model's own limit)",
    )
    group.add_argument(
        "--max-num-seqs", type=at_least(1), metavar="N", help="sequences in one step (default 256)"
    )
    group.add_argument(
        "--max-num-batched-tokens",
        type=at_least(1),
        metavar="TOKENS",
        help="tokens in one step (default 8192)",
    )
    group.add_argument(
        "--device-memory-fraction",
        type=_fraction,
        metavar="X",
        help="part of the free memory that the cache may take (default 0.9)",
    )
    group.add_argument(
        "--generation-config",
        choices=_values(GenerationConfig),
        help="where sampling defaults come from: the model's file, or nowhere (default auto)",
    )


def add_server(parser: Parser) -> None:
    """Flags of any HTTP server."""
    group = parser.add_argument_group("server")
    group.add_argument("--host", metavar="ADDRESS", help="default 127.0.0.1")
    group.add_argument("--port", type=_port, metavar="N", help="default 8000; 0 takes a free one")
    group.add_argument(
        "--api-key",
        action="append",
        dest="api_keys",
        metavar="KEY",
        help="a key that clients must send; repeatable; or ASCEND_SERVING_API_KEYS",
    )
    group.add_argument(
        "--max-body-mib", type=at_least(1), metavar="MIB", help="largest body (default 16)"
    )
    group.add_argument(
        "--drain-timeout",
        dest="drain_timeout_s",
        type=at_least(0),
        metavar="SECONDS",
        help="what streams get to finish after SIGTERM (default 30)",
    )
    group.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain, PEM")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")


def add_discovery(parser: Parser) -> None:
    """Where a router finds its replicas: a list, or a Service of a cluster."""
    group = parser.add_argument_group("replicas")
    one = group.add_mutually_exclusive_group(required=True)
    one.add_argument("--replicas", metavar="URL,URL", help="the replicas' addresses")
    one.add_argument(
        "--service", type=_label, metavar="NAME", help="the Service of the replicas, watched"
    )
    group.add_argument(
        "--namespace",
        type=_label,
        metavar="NAME",
        help="where the Service is (default: the pod's own, or that of the kubeconfig's context)",
    )
    group.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="how to reach the cluster from outside (default: as its pods do)",
    )


def add_routing(parser: Parser) -> None:
    """Flags of the router."""
    group = parser.add_argument_group("routing")
    group.add_argument(
        "--policy", choices=_values(Policy), help=f"default {Policy.LEAST_PENDING_TOKENS}"
    )
    group.add_argument(
        "--max-pending-tokens-per-replica",
        type=at_least(1),
        metavar="TOKENS",
        help="429 when every replica has more and requests are waiting (default 65536)",
    )
    group.add_argument(
        "--session-affinity-header", metavar="NAME", help="request header that names a session"
    )
    group.add_argument(
        "--session-affinity-ttl-seconds",
        type=at_least(1),
        metavar="SECONDS",
        help="how long a silent session is remembered (default 600)",
    )
    group.add_argument(
        "--api-keys-dir",
        type=Path,
        metavar="DIR",
        help="folder of keys, one a file, re-read on change",
    )


def add_logging(parser: Parser) -> None:
    """`--log-level` and `--log-format`."""
    group = parser.add_argument_group("logging")
    group.add_argument("--log-level", choices=logs.LEVELS, default="info", help="default info")
    group.add_argument("--log-format", choices=logs.FORMATS, default="text", help="default text")


def topology_of(given: Given) -> Topology:
    """Build the topology from `--devices`, `--dp` and `--tp`.

    Raises:
        InvalidTopology: they do not fit together.
    """
    dp, tp, devices = given.get("dp", 1), given.get("tp", 1), given.get("devices")
    assert isinstance(dp, int)
    assert isinstance(tp, int)
    if isinstance(devices, tuple):
        return Topology(dp=dp, tp=tp, devices=devices)
    return Topology.of_sizes(dp=dp, tp=tp)


def _values(closed_set: type[DeviceKind | Dtype | GenerationConfig | Policy]) -> list[str]:
    return [member.value for member in closed_set]
