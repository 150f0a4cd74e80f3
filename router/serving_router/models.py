"""Which model names are served: given at the start, or learned from the replicas."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from serving_http.errors import model_not_found
from serving_router.errors import NoReplicaReady, ReplicaFailed
from serving_router.ledger import FREE
from serving_router.load_table import LoadTable
from serving_router.policy import least_requests
from serving_router.replica import Replica

_log = logging.getLogger(__name__)

ASK_INTERVAL_S: Final = 0.5


class NamesModels(Protocol):
    """Asks a replica what it serves."""

    async def model_names(self, replica: Replica) -> frozenset[str]:
        """Return the names.

        Raises:
            ReplicaFailed: it did not tell.
        """
        ...


class ServedModels:
    """The names; empty as long as they are not known."""

    def __init__(self, given: str | None = None) -> None:
        self._names = frozenset() if given is None else frozenset({given})

    @property
    def are_known(self) -> bool:
        """Whether a name that is not served can be told from one that is not known yet."""
        return bool(self._names)

    def check(self, model: str) -> None:
        """Accept a model's name.

        Raises:
            NoReplicaReady: no replica has told yet what it serves.
            ApiError: 404, the model is not served here.
        """
        if not self.are_known:
            raise NoReplicaReady("no replica has told its model yet; try again in a moment")
        if model not in self._names:
            raise model_not_found(model, self._names)

    async def learn(self, table: LoadTable, replicas: NamesModels) -> None:
        """Ask one replica after another until one tells."""
        while not self.are_known:
            self._names = await _ask(table, replicas)
            if not self.are_known:
                await asyncio.sleep(ASK_INTERVAL_S)
        _log.info("serving %s", ", ".join(sorted(self._names)))


async def _ask(table: LoadTable, replicas: NamesModels) -> frozenset[str]:
    candidates = table.candidates()
    if not candidates:
        return frozenset()
    with table.reserve(FREE, lambda routable: min(routable, key=least_requests)) as reservation:
        try:
            return await replicas.model_names(reservation.replica)
        except ReplicaFailed as error:
            _log.debug("replica %s: %s", reservation.replica.name, error)
            return frozenset()
