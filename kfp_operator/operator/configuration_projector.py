"""Records the ends of runs in the status of the RunConfigurations that made them, from consumed run-completion events.

It follows the projection of the Run itself and comes before the acknowledgement, so that what a configuration knows of its runs does not
depend on Runs that are deleted. Completions of one configuration that arrive while its status is being written are written together
with the next write; whoever waits for a write gets its outcome, and the delivery is tried again as a whole.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from kfp_operator.api.clip import clip
from kfp_operator.api.run import Run
from kfp_operator.api.run_configuration import LatestRun, LatestRuns, RunConfiguration, RunConfigurationStatus
from kfp_operator.errors import ClusterUnavailable, Conflict, NotFound, Unprocessable
from kfp_operator.operator.faults import fault_point
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.ports import Guard, Objects, Wake
from kfp_operator.operator.store import Key, SettledRun, Store
from kfp_operator.reconcile.configuration_projection import Ended, record
from kfp_operator.schemas import RunCompletion

log = logging.getLogger(__name__)

CONFLICTS = 6


@dataclass(slots=True)
class _Batch:
    """Ends that are written together."""

    ended: list[Ended] = field(default_factory=list)
    written: bool = False
    error: Exception | None = None


@dataclass(slots=True)
class _Desk:
    """Of one configuration: the batch that still takes ends, and the lock of whoever writes."""

    batch: _Batch = field(default_factory=_Batch)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class ConfigurationProjector:
    """Writes `latestRuns`, `recentRuns` and what follows from them."""

    def __init__(self, *, store: Store, objects: Objects, metrics: Metrics, guard: Guard, wake: Wake) -> None:
        self._store = store
        self._objects = objects
        self._metrics = metrics
        self._guard = guard
        self._wake = wake
        self._desks: dict[Key, _Desk] = {}

    async def record(self, event: RunCompletion, *, news: bool) -> None:
        """Have the end recorded; returns when it is.

        `news`: the Run's status did not show this end before. Raises ClusterError and LeadershipLost: to be tried again.
        """
        if not event.run_configuration_name:
            return
        key = Key.parse("RunConfiguration", event.run_configuration_name)
        desk = self._desks.setdefault(key, _Desk())
        batch = desk.batch
        batch.ended.append(Ended(event, self._owner(event), news))
        desk.users += 1
        try:
            async with desk.lock:
                await self._write_once(key, desk, batch)
        finally:
            desk.users -= 1
            if not desk.users:
                self._desks.pop(key, None)

    async def _write_once(self, key: Key, desk: _Desk, batch: _Batch) -> None:
        """Write the batch, unless another who waited for it has."""
        if batch.written:
            if batch.error is not None:
                raise batch.error
            return
        desk.batch, batch.written = _Batch(), True
        batch.error = ClusterUnavailable(f"{key} was not written: the process ends")  # for the others, if this one is cancelled
        try:
            await self._write(key, batch.ended)
        except Exception as error:
            batch.error = error
            raise
        batch.error = None

    async def _write(self, key: Key, ended: list[Ended]) -> None:
        for attempt in range(CONFLICTS):
            configuration = await self._latest(key, fresh=attempt > 0)
            if configuration is None:
                self._metrics.projected.labels(result="configuration-gone").inc(len(ended))
                return
            status = record(configuration, ended)
            if status is configuration.status:
                return
            self._guard()
            try:
                written = await self._patch(configuration, clip(status))
            except Conflict:
                continue
            except NotFound:
                continue
            fault_point("recorded")
            self._store.put(written)
            self._wake_users(key)
            return
        raise Conflict(f"{key} keeps changing", status=409)

    async def _patch(self, configuration: RunConfiguration, status: RunConfigurationStatus) -> RunConfiguration:
        try:
            return await self._objects.patch_status(configuration, status)
        except Unprocessable as error:
            log.warning("the API server refuses the status of %s, artifacts are left out: %s", Key.of(configuration), error)
            self._metrics.status_refused.inc()
            return await self._objects.patch_status(configuration, _without_artifacts(status))

    async def _latest(self, key: Key, *, fresh: bool) -> RunConfiguration | None:
        stored = self._store.get(key)
        if not fresh and isinstance(stored, RunConfiguration):
            return stored
        try:
            found = await self._objects.get(key)
        except NotFound:
            return None
        return found if isinstance(found, RunConfiguration) else None

    def _owner(self, event: RunCompletion) -> str:
        """uid of what made the Run; "" when the Run is gone."""
        stored = self._store.get(Key.parse("Run", event.run_name))
        if isinstance(stored, SettledRun):
            return stored.owner if stored.uid == event.run_uid else ""
        if not isinstance(stored, Run) or stored.metadata.uid != event.run_uid:
            return ""
        return next((owner.uid for owner in stored.metadata.owner_references if owner.controller), "")

    def _wake_users(self, key: Key) -> None:
        """The configuration itself, and what follows it or waits for its artifacts."""
        self._wake(key)
        for user in self._store.referring(key):
            self._wake(user)


def _without_artifacts(status: RunConfigurationStatus) -> RunConfigurationStatus:
    """Only what decides: what comes from users, and may be large, is left out."""
    runs = status.latest_runs
    return status.model_copy(update={"latest_runs": LatestRuns(succeeded=_bare(runs.succeeded), failed=_bare(runs.failed))})


def _bare(run: LatestRun | None) -> LatestRun | None:
    return run.model_copy(update={"artifacts": []}) if run is not None else None
