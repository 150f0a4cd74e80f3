"""From EndpointSlices to replicas: pure, so that every rule of merging is a line in a table.

One pod may be in several slices, while it moves between them or in one of each address family; one
address may be named for two pods, while one of them goes. Each pod and each address comes once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from serving_contract.kubernetes import PORT_NAME
from serving_router.endpoint_slice import Conditions, Endpoint, EndpointSlice
from serving_router.replica import Replica

_HOSTS: Final = {"IPv4": "{}", "IPv6": "[{}]"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One pod as one slice has it."""

    replica: Replica
    is_ipv4: bool
    version: int
    slice_name: str

    @property
    def pod(self) -> str:
        return self.replica.uid or self.replica.url

    @property
    def rank(self) -> tuple[bool, bool, bool, bool, int, str]:
        """Order entries for the same pod; the greatest counts.

        The family comes first, so that the address of a pod does not change with its condition.
        The slice's name only makes the choice independent of the order in which slices came.
        """
        it = self.replica
        conditions = it.ready, it.serving, not it.terminating
        return self.is_ipv4, *conditions, self.version, self.slice_name


def replicas_of(slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
    """Return the replicas behind all slices of one Service, in the order of their names."""
    entries = [entry for one in slices for entry in _entries(one)]
    entries = _greatest(entries, lambda entry: entry.pod)
    entries = _greatest(entries, lambda entry: entry.replica.url)
    return tuple(sorted((entry.replica for entry in entries), key=_place))


def _greatest(entries: list[_Entry], key: Callable[[_Entry], Hashable]) -> list[_Entry]:
    kept = {key(entry): entry for entry in sorted(entries, key=lambda entry: entry.rank)}
    return list(kept.values())


def _place(replica: Replica) -> tuple[int, str, str]:
    """Order pods of one ServingDeployment by their index: m-2 comes before m-10."""
    return len(replica.name), replica.name, replica.url


def _entries(one: EndpointSlice) -> Iterator[_Entry]:
    host, port = _HOSTS.get(one.address_type), _http_port(one)
    if host is None or port is None:
        return
    for endpoint in one.endpoints or ():
        if endpoint.addresses:
            yield _Entry(
                replica=_replica(endpoint, f"http://{host.format(endpoint.addresses[0])}:{port}"),
                is_ipv4=one.address_type == "IPv4",
                version=_number(one.metadata.resource_version),
                slice_name=one.metadata.name,
            )


def _http_port(one: EndpointSlice) -> int | None:
    numbers = [
        port.port
        for port in one.ports or ()
        if port.name == PORT_NAME and port.protocol in (None, "TCP")
    ]
    return numbers[0] if numbers else None


def _replica(endpoint: Endpoint, url: str) -> Replica:
    conditions = endpoint.conditions or Conditions()
    pod = endpoint.target_ref
    return Replica(
        url=url,
        pod=pod.name if pod else None,
        uid=pod.uid if pod else None,
        ready=conditions.is_ready,
        serving=conditions.is_serving,
        terminating=conditions.is_terminating,
    )


def _number(resource_version: str) -> int:
    """Versions of one resource are numbers that grow; what is none counts as the oldest."""
    return int(resource_version) if resource_version.isdecimal() else 0
