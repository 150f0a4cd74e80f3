"""HTTP header names and limits that replicas, routers and clients agree on, in lower case."""

REQUEST_ID = "x-request-id"
PRIVATE_PREFIX = "x-ascend-serving-"
"""Request headers with this prefix are the router's own: it drops those that a client sends."""

RESERVATION = "x-ascend-serving-reservation"
EXPECTED_TOKENS = "x-ascend-serving-expected-tokens"
PROMPT_TOKENS = "x-ascend-serving-prompt-tokens"
REPLICA = "x-ascend-serving-replica"
ENDPOINT_LOAD_METRICS = "endpoint-load-metrics"
"""ORCA load report of a unary answer (open-request-cost-aggregation, `TEXT` form)."""

MAX_REQUEST_ID_LENGTH = 128
MAX_RETRY_AFTER_S = 120
"""The OpenAI SDK gives up on a longer `Retry-After` than this."""
