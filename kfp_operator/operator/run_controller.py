"""Carries out what `reconcile.run` decides: one Run at a time, step after step, until nothing is left to do.

A failure that may pass puts off the kind of step that failed, never the others: a Run whose backend is away still says so in its status.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from kfp_operator.api.experiment import Experiment
from kfp_operator.api.names import Names
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.provider import Provider
from kfp_operator.api.run import Run
from kfp_operator.api.run_configuration import RunConfiguration
from kfp_operator.errors import BusError, Conflict, InvalidSpec, NotFound, Permanent, ProviderError, Retryable
from kfp_operator.operator.backends import Backends
from kfp_operator.operator.backoff import backoff
from kfp_operator.operator.flights import Flight, Flights
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.outbox import Outbox
from kfp_operator.operator.ports import Guard, Now, Objects, Recorder, Revisions
from kfp_operator.operator.run_effects import RunEffects
from kfp_operator.operator.store import Key, SettledRun, Store
from kfp_operator.reconcile import actions, retry
from kfp_operator.reconcile.actions import Action, Decision
from kfp_operator.reconcile.blockers import unresolved
from kfp_operator.reconcile.outcome import Refusal
from kfp_operator.reconcile.run import decide
from kfp_operator.reconcile.situation import Situation
from kfp_operator.schemas import RunCompletion
from kfp_operator.schemas import RunStatus as RunStatusEvent

log = logging.getLogger(__name__)

STEPS = 100
"""Most steps in one go; a Run that needs more has a defect in its decisions."""
MAX_BACKOFF = 60.0
BUS_BACKOFF = 5.0
UNCHECKED_AGAIN = 5.0


class RunController:
    """Reconciles Runs."""

    def __init__(
        self,
        *,
        store: Store,
        objects: Objects,
        revisions: Revisions,
        versions_of: Callable[[str, str], frozenset[str]],
        backends: Backends,
        outbox: Outbox,
        recorder: Recorder,
        metrics: Metrics,
        guard: Guard,
        now: Now,
        names: Names,
        artifact_deadline: timedelta,
        project: Callable[[RunStatusEvent | RunCompletion], None],
    ) -> None:
        self._store = store
        self._objects = objects
        self._versions_of = versions_of
        self._backends = backends
        self._recorder = recorder
        self._guard = guard
        self._now = now
        self._names = names
        self._artifact_deadline = artifact_deadline
        self._flights = Flights(store, backends)
        self._effects = RunEffects(
            objects=objects,
            revisions=revisions,
            backends=backends,
            outbox=outbox,
            recorder=recorder,
            metrics=metrics,
            now=now,
            names=names,
            project=project,
        )

    def owner(self, submission: str) -> Key | None:
        """The Run that a backend's update is about, if this process has looked at it, or if it settled and goes on at the backend."""
        return self._flights.owner(submission)

    @property
    def undelivered(self) -> int:
        """Runs with events that the bus has not taken."""
        return self._flights.undelivered

    def saw(self, event: RunStatusEvent) -> None:
        """The projector read a run-status: it is stored, whether the answer to its publication came or not."""
        flight = self._flights.get(event.run_uid)
        if flight is not None:
            flight.known.hear(event)

    def gone(self, uid: str) -> None:
        """The Run is settled or deleted: what is known of it beside its object is forgotten."""
        self._flights.gone(uid)

    async def reconcile(self, key: Key) -> float | None:
        """Take the Run as far as it goes; seconds after which to look again, None: when something changes."""
        stored = self._store.get(key)
        run: Run | None
        if isinstance(stored, SettledRun):
            if not self._flights.reopened(stored):
                self.gone(stored.uid)
                return await self._expire(stored)
            run = await self._fetch(key, stored.uid)
        else:
            run = stored if isinstance(stored, Run) else None
        if run is None:
            return None
        return await self._take(run, self._flights.enter(run.metadata.uid))

    async def _take(self, run: Run, flight: Flight) -> float | None:
        for _ in range(STEPS):
            situation = self._situation(run, flight)
            if situation.provider is not None and self._backends.check_of(situation.provider.resource.metadata.full_name) is None:
                return UNCHECKED_AGAIN  # the Provider's first check wakes it
            decision = decide(situation)
            if decision.forget_published:
                flight.known.forget_published(run.status)
            if decision.action is None:
                if run.status.completion_state is not None and self._names.finalizer not in run.metadata.finalizers:
                    self.gone(run.metadata.uid)
                return decision.again
            left = self._put_off(flight, decision.action)
            if left > 0:
                return left if decision.again is None else max(min(left, decision.again), 0.05)
            absent_before = flight.known.absent_since
            after = await self._perform(run, flight, decision)
            if after is None:
                self.gone(run.metadata.uid)
                return None
            run = after
            if isinstance(decision.action, actions.Lookup) and flight.known.update is None and absent_before is not None:
                return decision.again
        log.error("Run %s needs too many steps, it is put off; please report this", run.metadata.full_name)
        return MAX_BACKOFF

    async def _expire(self, run: SettledRun) -> float | None:
        if run.expires is None:
            return None
        left = (run.expires - self._now()).total_seconds()
        if left > 0:
            return left
        self._guard()
        with suppress(NotFound, Conflict):
            await self._objects.delete(run.key, run.uid)
        return None

    def _situation(self, run: Run, flight: Flight) -> Situation:
        names, namespace = self._names, run.metadata.namespace
        pipeline = self._store.get(Key("Pipeline", namespace, run.spec.pipeline_name))
        pipeline = pipeline if isinstance(pipeline, Pipeline) else None
        wanted = run.metadata.annotations.get(names.provider, "") or (pipeline.spec.provider if pipeline is not None else "")
        resource = self._store.get(Key.parse("Provider", wanted))
        now = self._now()
        flight.known.turn(run.status)
        if names.finalizer in run.metadata.finalizers or run.status.completion_state is not None:
            update = self._flights.follow(flight, Key.of(run), run.metadata.uid, wanted, now)
            if update is not None:
                retry.report(run, flight.known, update, now)
        return Situation(
            run=run,
            pipeline=pipeline,
            provider=self._backends.view(resource if isinstance(resource, Provider) else None),
            known=flight.known,
            versions=self._versions_of(namespace, run.spec.pipeline_name),
            configurations=self._configurations(run),
            experiment=self._experiment(run),
            artifact_deadline=self._artifact_deadline,
            now=now,
            names=names,
        )

    def _experiment(self, run: Run) -> Experiment | None:
        found = self._store.get(Key("Experiment", run.metadata.namespace, run.spec.experiment_name))
        return found if isinstance(found, Experiment) else None

    def _configurations(self, run: Run) -> dict[str, RunConfiguration]:
        """The RunConfigurations whose artifacts the Run waits for, as far as they exist."""
        wanted = unresolved(run.spec.parameters, run.status.resolved, run.metadata.namespace)
        found = {name: self._store.get(Key.parse("RunConfiguration", name)) for name in wanted}
        return {name: stored for name, stored in found.items() if isinstance(stored, RunConfiguration)}

    async def _perform(self, run: Run, flight: Flight, decision: Decision) -> Run | None:
        """Do one step. Returns the Run as it is then; None: it is gone."""
        action = decision.action
        kind = type(action)
        key, uid = Key.of(run), run.metadata.uid
        self._guard()
        try:
            after = await self._effects.act(run, flight, action)
        except (Conflict, NotFound):
            return await self._fetch(key, uid)
        except (InvalidSpec, Permanent) as error:
            if isinstance(action, actions.Submit):
                flight.known.refusal = Refusal(error.reason, str(error))
                self._recorder.warning(run, error.reason, str(error))
                return run
            log.warning("Run %s: %s", run.metadata.full_name, error)
            self._tell(run, action, error.reason, error)
            self._back_off(flight, kind, MAX_BACKOFF)
        except ProviderError as error:
            if isinstance(action, actions.Submit):
                flight.known.trouble = str(error)
                flight.known.trouble_reason = error.reason
            log.info("Run %s: %s is tried again: %s", run.metadata.full_name, kind.__name__, error)
            self._tell(run, action, error.reason, error)
            self._back_off(flight, kind, MAX_BACKOFF, after=error.after if isinstance(error, Retryable) else None)
        except BusError as error:
            flight.known.bus_away_since = flight.known.bus_away_since or self._now()
            log.info("Run %s: %s is tried again: %s", run.metadata.full_name, kind.__name__, error)
            self._back_off(flight, kind, BUS_BACKOFF)
        else:
            flight.failures.pop(kind, None)
            flight.not_before.pop(kind, None)
            if after is not None and after is not run:
                self._store.put(after)
            return after
        return run

    async def _fetch(self, key: Key, uid: str) -> Run | None:
        """The Run as it is at the API server; None: it is gone."""
        try:
            fresh = await self._objects.get(key)
        except NotFound:
            self._store.drop(key)
            return None
        self._store.put(fresh)
        return fresh if isinstance(fresh, Run) and fresh.metadata.uid == uid else None

    def _tell(self, run: Run, action: Action | None, reason: str, error: Exception) -> None:
        """What the provider failed in, where status has no place for it: a stop that fails, artifacts that are late."""
        if isinstance(action, actions.CancelRun | actions.Collect):
            self._recorder.warning(run, reason, str(error))

    def _put_off(self, flight: Flight, action: Action) -> float:
        until = flight.not_before.get(type(action))
        return (until - self._now()).total_seconds() if until is not None else 0.0

    def _back_off(self, flight: Flight, kind: type, most: float, *, after: float | None = None) -> None:
        failures = flight.failures[kind] = flight.failures.get(kind, 0) + 1
        delay = after if after is not None else backoff(failures, most=most)
        flight.not_before[kind] = self._now() + timedelta(seconds=delay)
