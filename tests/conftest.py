"""Settings of all tests, and the fixtures of the test cluster."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.cluster.fixtures", "tests.contract.fixtures"]

# A deadline would be a timed assertion: how fast a shared machine is decides nothing.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
