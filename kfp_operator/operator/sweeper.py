"""Finds out about deletions that no watch reported.

A watch that breaks for longer than the API server remembers is begun anew with a list, and what was deleted in between is in neither:
Kopf does not report it. So the names of all objects are listed (metadata only) every few minutes, and sooner when a watch began
anew, and what the store has but the API server has not is dropped. Only what the store had before the list began is judged by it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from kfp_operator.errors import ClusterError
from kfp_operator.operator.client import Cluster
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.resources import Resource
from kfp_operator.operator.store import Key, Store

log = logging.getLogger(__name__)

INTERVAL = 600.0
"""Seconds between sweeps."""
BACKOFF = 30.0
"""Seconds after a sweep that failed."""


async def present(cluster: Cluster, kinds: Sequence[Resource], namespaces: Sequence[str]) -> dict[Key, str]:
    """The uids of all objects of these kinds; no namespaces: in all of them. Raises ClusterError."""
    found = {}
    for kind in kinds:
        for namespace in namespaces or ("",):
            async for item in cluster.list(kind, namespace, metadata_only=True):
                metadata = item["metadata"]
                found[Key(kind.kind, metadata["namespace"], metadata["name"])] = metadata["uid"]
    return found


class Sweeper:
    """Sweeps one store. `gone` is called for each object that was dropped, with its key and uid."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        *,
        kinds: Sequence[Resource],
        namespaces: Sequence[str],
        gone: Callable[[Key, str], None],
        metrics: Metrics,
        interval: float = INTERVAL,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._kinds = tuple(kinds)
        self._namespaces = tuple(namespaces)
        self._gone = gone
        self._metrics = metrics
        self._interval = interval
        self._wake = asyncio.Event()

    def soon(self) -> None:
        """Sweep now instead of at the next time."""
        self._wake.set()

    async def run(self) -> None:
        """Sweep for ever. An API server that is away is waited for."""
        wait = self._interval
        while True:
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                log.debug("sweeping, as every %g s", self._interval)
            self._wake.clear()
            wait = self._interval
            try:
                await self.sweep()
            except ClusterError as error:
                log.warning("Deletions that no watch reported cannot be looked for: %s", error)
                wait = min(BACKOFF, self._interval)

    async def sweep(self) -> int:
        """Drop what no longer exists and return how many. Raises ClusterError."""
        before = self._store.uids()
        now = await present(self._cluster, self._kinds, self._namespaces)
        vanished = [(key, uid) for key, uid in before.items() if now.get(key) != uid]
        dropped = 0
        for key, uid in vanished:
            if self._store.drop(key, uid):
                dropped += 1
                self._metrics.swept.labels(kind=key.kind).inc()
                self._gone(key, uid)
        if dropped:
            log.info("%d objects were deleted without a report of the watch", dropped)
        return dropped
