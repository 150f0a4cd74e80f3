"""The HTTP server of one replica: the OpenAI API over the engine, load reports, health, drain."""

from serving_runtime.server.run import ServerSettings, run_replica

__all__ = ["ServerSettings", "run_replica"]
