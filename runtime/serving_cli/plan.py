"""`ascend-serving plan -f FILE`: which replica gets which devices; needs no cluster."""

from __future__ import annotations

from pathlib import Path

from serving_cli.deployment_file import read_deployment
from serving_cli.errors import UsageError
from serving_cli.flags import Given, Parser, add_devices
from serving_contract.deployment import ServingDeployment
from serving_contract.errors import InvalidTopology
from serving_contract.topology import Topology


def add_flags(parser: Parser) -> None:
    """Flags of this command."""
    parser.add_argument(
        "-f", "--file", type=Path, required=True, metavar="FILE", help="a ServingDeployment"
    )
    add_devices(parser)


def run(file: Path, given: Given) -> int:
    """Print the table.

    Raises:
        UsageError: the file is not a ServingDeployment, or the devices do not fit it.
    """
    try:
        print(table(read_deployment(file), given.get("devices")))  # noqa: T201
    except InvalidTopology as error:
        raise UsageError(str(error)) from error
    return 0


def table(deployment: ServingDeployment, devices: object) -> str:
    """Return the device groups as text; `devices` are ids, or None for the first ones.

    Raises:
        InvalidTopology: the devices do not fit.
    """
    name, spec = deployment.metadata.name, deployment.spec
    dp, tp = spec.parallelism.data_parallel_size, spec.parallelism.tensor_parallel_size
    summary = f"{name}: model {spec.model.uri}, {dp} x {tp} devices of {spec.devices.resource_name}"
    if dp == 0:
        return f"{summary} (scaled to zero)"
    ids = devices if isinstance(devices, tuple) else tuple(range(dp * tp))
    groups = Topology(dp=dp, tp=tp, devices=ids).groups
    rows = [("REPLICA", "POD", "DEVICES")]
    rows += [
        (str(index), f"{name}-{index}", ",".join(map(str, group)))
        for index, group in enumerate(groups)
    ]
    return "\n".join([summary, *_aligned(rows)])


def _aligned(rows: list[tuple[str, str, str]]) -> list[str]:
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return [f"{a:<{first}}  {b:<{second}}  {c}" for a, b, c in rows]
