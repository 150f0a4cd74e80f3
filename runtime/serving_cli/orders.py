"""From the command line to what each local replica is told."""

from __future__ import annotations

from serving_cli import options
from serving_cli.errors import UsageError
from serving_cli.flags import Given, topology_of
from serving_cli.local_replica import ReplicaOrder
from serving_contract.errors import ContractError
from serving_runtime.errors import Refused

DEFAULT_DRAIN_TIMEOUT_S = 30.0


def replica_orders(given: Given) -> list[ReplicaOrder]:
    """Return one order for each replica; everything is checked before a process starts.

    Raises:
        UsageError: the topology, a flag or the model folder is wrong.
    """
    try:
        topology = topology_of(given)
        configs = [options.engine_config(given, topology, index) for index in range(topology.dp)]
        configs[0].check()
    except (ContractError, Refused) as error:
        raise UsageError(str(error)) from error
    drain_timeout_s = given.get("drain_timeout_s", DEFAULT_DRAIN_TIMEOUT_S)
    assert isinstance(drain_timeout_s, int | float)
    return [
        ReplicaOrder(
            index=index,
            config=config,
            drain_timeout_s=drain_timeout_s,
            max_body_bytes=options.limits(given).max_body_bytes,
            log_level=str(given["log_level"]),
            log_format=str(given["log_format"]),
        )
        for index, config in enumerate(configs)
    ]
