"""Tells the ends of runs that others started (observe mode): completions without a Run object.

There is no object to compare with, so where a new process goes on is kept in the Provider's status (`observedUntil`): everything that
ended before it is told. It is written before anything is told for the first time, which is what makes runs of before that moment no
news, and follows every ten minutes. What is told twice over a restart the bus refuses, as it does everything: the subject of such a
completion is made of the Provider, the backend's id and the attempt.

Each end is told by a task of its own, a few at the same time, since artifacts may be late; the time that is kept never passes one that
is not told. Nothing here waits for Runs, nor they for it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

from kfp_operator.api.provider import Provider as ProviderResource
from kfp_operator.api.run import ArtifactDefinition
from kfp_operator.api.states import RunState
from kfp_operator.errors import BusError, ClusterError, Conflict, EventError, LeadershipLost, NotFound, Permanent, ProviderError, Retryable
from kfp_operator.events import artifacts
from kfp_operator.operator.backoff import backoff
from kfp_operator.operator.faults import fault_point
from kfp_operator.operator.outbox import Outbox
from kfp_operator.operator.ports import Guard, Now, Objects
from kfp_operator.operator.store import Key, Store
from kfp_operator.providers.protocol import Observed, Observing, Provider, RunUpdate
from kfp_operator.reconcile.outcome import Collected, observed_completion

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Ends of one Provider that are told at the same time."""
MAX_BACKOFF = 60.0
BUS_BACKOFF = 5.0
ARTIFACTS_AGAIN = 5.0
KEPT_EVERY = timedelta(minutes=10)
"""How far the time that is kept may lag while there is news."""
KEPT_IDLE = timedelta(hours=6)
"""And while there is none."""
CONFLICTS = 6

Pause = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class Progress:
    """How far one watch of a Provider is."""

    kept: datetime
    """What the Provider's status says."""
    reached: datetime
    """Every end before it has been taken in."""
    pending: dict[tuple[str, int], datetime] = field(default_factory=dict)
    """Ends that were taken in and are not told, and when they were."""
    news: bool = False
    """Something was told since `kept` was written."""

    def due(self) -> datetime | None:
        """What is to be kept now; None: nothing yet."""
        told = min([self.reached, *self.pending.values()]).replace(microsecond=0)
        return told if told - self.kept >= (KEPT_EVERY if self.news else KEPT_IDLE) else None


class Observer:
    """Observes for all Providers that are asked to. `artifact_deadline`: how long a succeeded run's artifacts are waited for."""

    def __init__(
        self,
        *,
        store: Store,
        objects: Objects,
        outbox: Outbox,
        guard: Guard,
        now: Now,
        artifact_deadline: timedelta,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._store = store
        self._objects = objects
        self._outbox = outbox
        self._guard = guard
        self._now = now
        self._artifact_deadline = artifact_deadline
        self._pause = pause

    async def observe(self, name: str, provider: Provider) -> None:
        """Observe for the Provider "ns/name" until cancelled; return at once where it is not asked to."""
        failures = 0
        while True:
            began = self._now()
            try:
                self._guard()
                if provider.others is None:
                    await self._keep(name, None)
                    return
                await self._watch(name, provider, provider.others)
            except NotFound:
                return
            except (ProviderError, ClusterError, LeadershipLost, OSError) as error:
                log.warning("Provider %s: the runs of others cannot be observed: %s", name, error)
            except Exception:
                log.exception("Provider %s: observing the runs of others failed; please report this", name)
            failures = 1 if self._now() - began > timedelta(minutes=1) else failures + 1
            await self._pause(backoff(failures, most=MAX_BACKOFF))

    async def _watch(self, name: str, provider: Provider, others: Observing) -> None:
        """Tell what the backend reports, until it fails."""
        since = await self._begin(name)
        progress, room = Progress(since, since), asyncio.Semaphore(AT_ONCE)
        updates = cast("AsyncGenerator[RunUpdate | datetime]", others.watch(since))
        try:
            async with asyncio.TaskGroup() as telling, aclosing(updates):
                async for update in updates:
                    if isinstance(update, RunUpdate):
                        key = (update.submission_id, update.attempt)
                        if key not in progress.pending:
                            await room.acquire()
                            progress.pending[key] = update.end_time or update.history[-1].time
                            telling.create_task(self._tell(name, provider, others.artifacts, update, progress, room))
                    else:
                        progress.reached = update
                    await self._advance(name, progress)
        except ExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _tell(
        self,
        name: str,
        provider: Provider,
        wanted: Sequence[ArtifactDefinition],
        update: RunUpdate,
        progress: Progress,
        room: asyncio.Semaphore,
    ) -> None:
        try:
            collected = await self._collect(provider, wanted, update) if update.state is RunState.SUCCEEDED else Collected()
            await self._publish(name, update, collected)
            fault_point("observed")
            del progress.pending[update.submission_id, update.attempt]
            progress.news = True
        finally:
            room.release()

    async def _collect(self, provider: Provider, wanted: Sequence[ArtifactDefinition], update: RunUpdate) -> Collected:
        begun = self._now()
        while True:
            try:
                found = await provider.artifacts(update.submission_id)
            except (Retryable, Permanent) as error:
                if isinstance(error, Permanent) or self._now() - begun >= self._artifact_deadline:
                    return Collected(complete=False, problems=(f"its artifacts are not known: {error}",))
                await self._pause(error.after or ARTIFACTS_AGAIN)
            else:
                resolved, problems = artifacts.resolve(wanted, found)
                pipeline = (update.observed or Observed("")).pipeline.rpartition("/")[2]
                serving = artifacts.serving_model_artifacts(pipeline, update.provider_id, found)
                return Collected(tuple(resolved), tuple(serving), problems=tuple(problems))

    async def _publish(self, name: str, update: RunUpdate, collected: Collected) -> None:
        """Store the completion, however long the bus is away."""
        event, failures = observed_completion(name, update, collected), 0
        while True:
            try:
                await self._outbox.completion(event)
                return
            except EventError as error:
                log.warning("the end of run %s of Provider %s cannot be told: %s", event.run_id, name, error)
                return
            except (BusError, LeadershipLost) as error:
                failures += 1
                log.info("the completion of run %s of Provider %s is stored again: %s", event.run_id, name, error)
            await self._pause(backoff(failures, most=BUS_BACKOFF))

    # Where a new process goes on

    async def _begin(self, name: str) -> datetime:
        """Where observing goes on; the first time from now."""
        kept = (await self._read(name)).status.observed_until
        if kept is None:
            kept = self._now().replace(microsecond=0)
            await self._keep(name, kept)
            log.info("Provider %s: runs of others that end from now on are told", name)
        return kept

    async def _advance(self, name: str, progress: Progress) -> None:
        due = progress.due()
        if due is not None:
            await self._keep(name, due)
            progress.kept, progress.news = due, False

    async def _keep(self, name: str, until: datetime | None) -> None:
        """Write how far everything is told; None: nothing is observed, and what ends from now on is not to be told later."""
        for attempt in range(CONFLICTS):
            resource = await self._read(name, fresh=attempt > 0)
            if resource.status.observed_until == until:
                return
            try:
                written = await self._objects.patch_status(resource, resource.status.model_copy(update={"observed_until": until}))
            except Conflict:
                continue
            self._store.put(written)
            return
        raise Conflict(f"Provider {name} changes faster than its status can be written", status=409)

    async def _read(self, name: str, *, fresh: bool = False) -> ProviderResource:
        key = Key.parse("Provider", name)
        stored = None if fresh else self._store.get(key)
        found = stored if isinstance(stored, ProviderResource) else await self._objects.get(key)
        if not isinstance(found, ProviderResource):
            raise NotFound(f"Provider {name} is gone", status=404)
        return found
