"""The replica's Prometheus metrics, in a registry of their own.

Counters and histograms are fed per event; gauges are measured when they are scraped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving_runtime.load import Load

PREFIX: Final = "ascend_serving"
_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)
_TOKEN_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class ReplicaMetrics:
    """What one replica counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of accepted requests.")
        self._generation_tokens = self._counter("generation_tokens", "Tokens that were drawn.")
        self._time_to_first_token = self._histogram(
            "time_to_first_token_seconds", "From acceptance to the first token.", _SECONDS
        )
        self._inter_token_latency = self._histogram(
            "inter_token_latency_seconds", "Between two tokens of a sequence.", _TOKEN_SECONDS
        )
        self._latency = self._histogram(
            "e2e_request_latency_seconds", "From acceptance to a sequence's end.", _SECONDS
        )
        self._startup_phase = Gauge(
            "startup_phase_seconds",
            "Duration of a phase of the start.",
            ["phase"],
            namespace=PREFIX,
            registry=self.registry,
        )
        self._device_faults = Counter(
            "device_faults",
            "Faults of the replica's devices.",
            ["class", "code"],
            namespace=PREFIX,
            registry=self.registry,
        )
        self._counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.")
        self._counter("prefix_cache_hits", "Prompt tokens found in the prefix cache.")

    def accepted(self, prompt_tokens: int) -> None:
        """Count a request."""
        self._prompt_tokens.inc(prompt_tokens)

    def first_token(self, seconds: float) -> None:
        """Count the first token of a sequence, `seconds` after its request was accepted."""
        self._generation_tokens.inc()
        self._time_to_first_token.observe(seconds)

    def next_token(self, seconds: float) -> None:
        """Count a further token, `seconds` after the one before."""
        self._generation_tokens.inc()
        self._inter_token_latency.observe(seconds)

    def finished(self, seconds: float) -> None:
        """Count a sequence that ended by itself."""
        self._latency.observe(seconds)

    def started(self, phases: Mapping[str, float]) -> None:
        """Note how long the phases of the start took, in seconds."""
        for phase, seconds in phases.items():
            self._startup_phase.labels(phase).set(seconds)

    def observe_load(self, measure: Callable[[], Load], preemptions: Callable[[], int]) -> None:
        """Add the gauges that are measured at each scrape."""
        self.registry.register(_LoadCollector(measure, preemptions))

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, namespace=PREFIX, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, namespace=PREFIX, registry=self.registry, buckets=buckets)


class _LoadCollector(Collector):
    def __init__(self, measure: Callable[[], Load], preemptions: Callable[[], int]) -> None:
        self._measure = measure
        self._preemptions = preemptions

    def collect(self) -> Iterable[Metric]:
        load = self._measure()
        yield _gauge("num_requests_running", "Sequences that own KV blocks.", load.running)
        yield _gauge("num_requests_waiting", "Sequences that wait for KV blocks.", load.waiting)
        usage = load.kv_blocks_used / max(1, load.kv_blocks_total)
        yield _gauge("kv_cache_usage_ratio", "Share of the KV blocks in use.", usage)
        pending = load.pending_prompt_tokens + load.pending_output_tokens
        yield _gauge("pending_tokens", "Prompt and expected output still owed.", pending)
        yield CounterMetricFamily(
            f"{PREFIX}_num_preemptions",
            "Sequences that lost their KV blocks to others.",
            value=self._preemptions(),
        )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)
