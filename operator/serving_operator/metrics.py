"""What Prometheus sees of the operator; names are promised in the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters of one operator, in a registry of its own."""

    def __init__(self, queue_depth: Callable[[], int], is_leader: Callable[[], bool]) -> None:
        self._registry = CollectorRegistry()
        prefix = "ascend_serving_operator_"
        self.reconciles = Counter(
            prefix + "reconcile", "Reconciles by result", ["result"], registry=self._registry
        )
        self.seconds = Histogram(
            prefix + "reconcile_seconds",
            "Time of one reconcile",
            buckets=_SECONDS,
            registry=self._registry,
        )
        depth = Gauge(prefix + "queue_depth", "Keys that wait", registry=self._registry)
        depth.set_function(lambda: float(queue_depth()))
        leader = Gauge(prefix + "is_leader", "1 while this process leads", registry=self._registry)
        leader.set_function(lambda: float(is_leader()))

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)
