"""What Prometheus sees of the router; names are promised in the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serving_router.load_table import LoadTable

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters and histograms of one router, in a registry of its own."""

    def __init__(self, table: LoadTable) -> None:
        self._registry = CollectorRegistry()
        prefix = "ascend_serving_router_"
        self.requests = Counter(
            prefix + "requests",
            "Proxied requests by status; 499 = the client hung up before the answer",
            ["code"],
            registry=self._registry,
        )
        self.duration = Histogram(
            prefix + "request_duration_seconds",
            "From a request's head to the end of its answer",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.time_to_first_token = Histogram(
            prefix + "time_to_first_token_seconds",
            "From a request's head to the first byte of a streamed answer",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.rejected = Counter(
            prefix + "rejected",
            "Requests that no replica was asked to answer",
            ["reason"],
            registry=self._registry,
        )
        self.retries = Counter(
            prefix + "retries",
            "Attempts after the first one",
            registry=self._registry,
        )
        self.last_sync = Gauge(
            prefix + "discovery_last_sync_seconds",
            "Unix time at which the replica set was last known to be current",
            registry=self._registry,
        )
        self._registry.register(_ReplicaCollector(table))

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _ReplicaCollector(Collector):
    """Reads the load table when it is asked, so that a request pays nothing for it."""

    def __init__(self, table: LoadTable) -> None:
        self._table = table

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return one sample for each replica."""
        pending = GaugeMetricFamily(
            "ascend_serving_router_replica_pending_tokens",
            "Tokens that a replica owes, as the router counts them",
            labels=["replica"],
        )
        in_flight = GaugeMetricFamily(
            "ascend_serving_router_replica_in_flight",
            "This router's requests on a replica",
            labels=["replica"],
        )
        for load in self._table.loads():
            pending.add_metric([load.name], load.owed_tokens)
            in_flight.add_metric([load.name], load.in_flight)
        yield pending
        yield in_flight
