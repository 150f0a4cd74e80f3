"""`ascend-serving plan -f FILE`: what the operator would create, and who gets which devices.

Needs no cluster: the objects come from the operator's own code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import yaml

from serving_cli.deployment_file import read_deployment
from serving_cli.errors import UsageError
from serving_cli.flags import Given, Parser, add_devices, add_images
from serving_cli.images import defaults_of
from serving_contract.deployment import ServingDeployment
from serving_contract.errors import InvalidTopology
from serving_contract.topology import Topology
from serving_operator.errors import TemplateInvalid
from serving_operator.preview import objects_of

OUTPUTS: Final = ("table", "yaml", "json")


def add_flags(parser: Parser) -> None:
    """Flags of this command."""
    parser.add_argument(
        "-f", "--file", type=Path, required=True, metavar="FILE", help="a ServingDeployment"
    )
    parser.add_argument("-o", "--output", choices=OUTPUTS, help="default table")
    add_devices(parser)
    add_images(parser)


def run(file: Path, given: Given) -> int:
    """Print the plan.

    Raises:
        UsageError: the file is not a ServingDeployment, or devices or template do not fit it.
    """
    deployment = read_deployment(file)
    try:
        objects = objects_of(deployment, defaults_of(given))
        groups = table(deployment, given.get("devices"))
    except (InvalidTopology, TemplateInvalid) as error:
        raise UsageError(str(error)) from error
    match given.get("output", "table"):
        case "yaml":
            text = yaml.dump_all(objects, Dumper=_NoAliases, sort_keys=False, allow_unicode=True)
        case "json":
            text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}, indent=2)
        case _:
            text = f"{groups}\n\n{_object_table(objects)}"
    print(text.rstrip("\n"))  # noqa: T201
    return 0


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


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


def _object_table(objects: Sequence[Mapping[str, object]]) -> str:
    rows = [("KIND", "NAME", "")]
    for body in objects:
        metadata = body["metadata"]
        assert isinstance(metadata, Mapping)
        rows.append((str(body["kind"]), str(metadata["name"]), ""))
    return "\n".join(_aligned(rows))


def _aligned(rows: list[tuple[str, str, str]]) -> list[str]:
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return [f"{a:<{first}}  {b:<{second}}  {c}".rstrip() for a, b, c in rows]
