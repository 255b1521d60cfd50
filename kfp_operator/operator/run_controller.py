"""Carries out what `reconcile.run` decides: one Run at a time, step after step, until nothing is left to do.

All state of a Run outside its object lives in a `Flight`, lost with the process and made again by looking. A failure that may pass
puts off the kind of step that failed, never the others: a Run whose backend is away still says so in its status.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kfp_operator.api.names import Names, label_value
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.provider import Provider
from kfp_operator.api.run import Run, RunStatus
from kfp_operator.api.states import RunState
from kfp_operator.errors import BusError, Conflict, InvalidSpec, NotFound, Permanent, ProviderError, Retryable
from kfp_operator.events import artifacts
from kfp_operator.events.publisher import SlotTaken
from kfp_operator.operator.backends import Backend, Backends
from kfp_operator.operator.backoff import backoff
from kfp_operator.operator.faults import fault_point
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.outbox import Outbox
from kfp_operator.operator.ports import Guard, Now, Objects, Recorder, Revisions
from kfp_operator.operator.store import Key, SettledRun, Store
from kfp_operator.providers import ir
from kfp_operator.providers.protocol import PipelineVersion, Submission, submission_id
from kfp_operator.reconcile import actions
from kfp_operator.reconcile.actions import Action, Decision
from kfp_operator.reconcile.outcome import Collected, Refusal, attempt_of
from kfp_operator.reconcile.run import decide
from kfp_operator.reconcile.situation import Knowledge, Situation
from kfp_operator.schemas import RunCompletion
from kfp_operator.schemas import RunStatus as RunStatusEvent

log = logging.getLogger(__name__)

STEPS = 100
"""Most steps in one go; a Run that needs more has a defect in its decisions."""
MAX_BACKOFF = 60.0
BUS_BACKOFF = 5.0
UNCHECKED_AGAIN = 5.0


@dataclass(slots=True)
class Flight:
    """What this process knows of one unfinished Run."""

    known: Knowledge = field(default_factory=Knowledge)
    submission: str = ""
    provider: str = ""
    failures: dict[type, int] = field(default_factory=dict)
    not_before: dict[type, datetime] = field(default_factory=dict)


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
        self._revisions = revisions
        self._versions_of = versions_of
        self._backends = backends
        self._outbox = outbox
        self._recorder = recorder
        self._metrics = metrics
        self._guard = guard
        self._now = now
        self._names = names
        self._artifact_deadline = artifact_deadline
        self._project = project
        self._flights: dict[str, Flight] = {}
        self._owners: dict[str, Key] = {}

    def owner(self, submission: str) -> Key | None:
        """The Run that a backend's update is about, if this process has looked at it."""
        return self._owners.get(submission)

    @property
    def undelivered(self) -> int:
        """Runs with events that the bus has not taken."""
        return sum(1 for flight in self._flights.values() if flight.known.bus_away_since is not None)

    def saw(self, event: RunStatusEvent) -> None:
        """The projector read a run-status: it is stored, whether the answer to its publication came or not."""
        flight = self._flights.get(event.run_uid)
        if flight is not None:
            flight.known.transition = max(flight.known.transition, event.transition)
            flight.known.published.add((event.attempt, RunState(event.state), event.time))

    async def reconcile(self, key: Key) -> float | None:
        """Take the Run as far as it goes; seconds after which to look again, None: when something changes."""
        stored = self._store.get(key)
        if isinstance(stored, SettledRun):
            self.gone(stored.uid)
            return await self._expire(stored)
        if not isinstance(stored, Run):
            return None
        run = stored
        flight = self._flights.get(run.metadata.uid)
        if flight is None:
            flight = self._flights[run.metadata.uid] = Flight()
        for _ in range(STEPS):
            situation = self._situation(run, flight)
            if situation.provider is not None and self._backends.check_of(situation.provider.resource.metadata.full_name) is None:
                return UNCHECKED_AGAIN  # the Provider's first check wakes it
            decision = decide(situation)
            if decision.forget_published:
                self._forget_published(flight.known)
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

    def gone(self, uid: str) -> None:
        """The Run is settled or deleted: what is known of it beside its object is forgotten."""
        flight = self._flights.pop(uid, None)
        if flight is not None:
            self._owners.pop(flight.submission, None)
            self._backends.settle(flight.provider, flight.submission)

    def _situation(self, run: Run, flight: Flight) -> Situation:
        names, namespace = self._names, run.metadata.namespace
        pipeline = self._store.get(Key("Pipeline", namespace, run.spec.pipeline_name))
        pipeline = pipeline if isinstance(pipeline, Pipeline) else None
        wanted = run.metadata.annotations.get(names.provider, "") or (pipeline.spec.provider if pipeline is not None else "")
        provider_namespace, _, provider_name = wanted.partition("/")
        resource = self._store.get(Key("Provider", provider_namespace, provider_name))
        resource = resource if isinstance(resource, Provider) else None
        if names.finalizer in run.metadata.finalizers and not flight.submission:
            flight.submission = submission_id(run.metadata.uid, attempt_of(run))
            flight.provider = wanted
            self._owners[flight.submission] = Key("Run", namespace, run.metadata.name)
        backend = self._backends.get(wanted)
        if backend is not None and (update := backend.latest.get(flight.submission)) is not None:
            flight.known.update = update
        return Situation(
            run=run,
            pipeline=pipeline,
            provider=self._backends.view(resource),
            known=flight.known,
            versions=self._versions_of(namespace, run.spec.pipeline_name),
            artifact_deadline=self._artifact_deadline,
            now=self._now(),
            names=names,
        )

    async def _perform(self, run: Run, flight: Flight, decision: Decision) -> Run | None:
        """Do one step. Returns the Run as it is then; None: it is gone."""
        action = decision.action
        kind = type(action)
        self._guard()
        try:
            after = await self._act(run, flight, action)
        except Conflict:
            return await self._fresh(run)
        except NotFound:
            return await self._fresh(run)
        except (InvalidSpec, Permanent) as error:
            if isinstance(action, actions.Submit):
                flight.known.refusal = Refusal(error.reason, str(error))
                self._recorder.warning(run, error.reason, str(error))
                return run
            log.warning("Run %s: %s", run.metadata.full_name, error)
            self._back_off(flight, kind, MAX_BACKOFF)
        except ProviderError as error:
            if isinstance(action, actions.Submit):
                flight.known.trouble = str(error)
                flight.known.trouble_reason = error.reason
            log.info("Run %s: %s is tried again: %s", run.metadata.full_name, kind.__name__, error)
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

    async def _act(self, run: Run, flight: Flight, action: Action | None) -> Run | None:
        known = flight.known
        match action:
            case actions.Bind():
                return await self._bind(run, flight, action)
            case actions.Recall():
                await self._recall(run, known)
            case actions.Submit():
                await self._submit(run, flight, action)
            case actions.Lookup():
                update = await self._backend(flight).provider.get_run(flight.submission)
                if update is None:
                    known.absent_since = known.absent_since or self._now()
                else:
                    known.absent_since, known.update = None, update
            case actions.CancelRun():
                await self._backend(flight).provider.cancel_run(flight.submission)
                fault_point("cancelled")
                known.cancel_sent = self._now()
            case actions.Collect():
                await self._collect(run, flight)
            case actions.PublishStatus():
                await self._publish_status(run, flight, action)
            case actions.PublishCompletion(event):
                await self._outbox.completion(event)
                fault_point("completion-published")
                known.completed.add(event.attempt)
                self._published(known)
                self._tell_end(run, flight, event.state, event.message)
            case actions.WriteStatus(status):
                return await self._write_status(run, status)
            case actions.Release():
                return await self._release(run, action)
            case actions.DeleteRun():
                await self._objects.delete(Key.of(run), run.metadata.uid)
                return None
        return run

    async def _bind(self, run: Run, flight: Flight, action: actions.Bind) -> Run:
        names = self._names
        labels = {names.pipeline: label_value(run.spec.pipeline_name)}
        if action.version:
            labels[names.pipeline_version] = action.version
        patch = {
            "finalizers": [*run.metadata.finalizers, names.finalizer],
            "labels": labels,
            "annotations": {names.provider: action.provider},
        }
        bound = await self._objects.patch_metadata(run, patch)
        fault_point("bound")
        flight.known.fresh = True
        return bound

    async def _recall(self, run: Run, known: Knowledge) -> None:
        meta = run.metadata
        stored = await self._outbox.recall(meta.namespace, meta.name, meta.uid, attempt_of(run))
        known.recalled, known.bus_away_since = True, None
        if stored.status is not None:
            known.published.add((stored.status.attempt, RunState(stored.status.state), stored.status.time))
            known.transition = max(known.transition, stored.status.transition)
            known.published_at = self._now()
            told = RunState(stored.status.state)
            if told.completes and not stored.status.run_id:  # it ended before it reached the backend: that stands
                known.refusal = Refusal("Refused", stored.status.message, told)
        if stored.completion is not None:
            known.completed.add(stored.completion.attempt)
            known.published_at = self._now()
        if known.overdue:  # acknowledged long ago, but the status was set back (a restored backup): nothing would bring it again
            known.overdue = False
            for event in (stored.status, stored.completion):
                if event is not None:
                    self._project(event)

    async def _submit(self, run: Run, flight: Flight, action: actions.Submit) -> None:
        namespace, pipeline_name = run.metadata.namespace, run.spec.pipeline_name
        try:
            revision = await self._revisions.load(namespace, pipeline_name, action.version)
        except NotFound as error:
            message = f"version {action.version} of Pipeline {namespace}/{pipeline_name} was deleted before the run was submitted"
            raise Permanent(message, reason="PipelineVersionNotFound") from error
        compiled = ir.parse_ir(revision.documents)
        for index, definition in enumerate(run.spec.artifacts):
            artifacts.check(definition, field=f"spec.artifacts[{index}]")
        submission = Submission(
            id=flight.submission,
            namespace=namespace,
            name=run.metadata.name,
            uid=run.metadata.uid,
            attempt=attempt_of(run),
            pipeline=PipelineVersion(namespace, pipeline_name, action.version, compiled.spec, compiled.platform_spec),
            parameters=ir.bind_parameters(compiled, run.spec.parameters),
            experiment=run.spec.experiment_name,
        )
        backend = self._backend(flight)
        # from here on the backend may have it, whatever the answer: who cancels or deletes the Run asks it first
        flight.known.fresh, flight.known.recalled, flight.known.absent_since = False, True, None
        provider_id = await backend.provider.submit_run(submission)
        fault_point("submitted")
        flight.known.submitted = True
        flight.known.trouble = flight.known.trouble_reason = ""
        self._recorder.normal(run, "Submitted", f"submitted to Provider {flight.provider} as {provider_id}")
        if flight.known.update is None and flight.submission not in backend.latest:
            flight.known.update = await backend.provider.get_run(flight.submission)

    async def _collect(self, run: Run, flight: Flight) -> None:
        found = await self._backend(flight).provider.artifacts(flight.submission)
        resolved, problems = artifacts.resolve(run.spec.artifacts, found)
        run_id = flight.known.update.provider_id if flight.known.update else ""
        serving = artifacts.serving_model_artifacts(run.spec.pipeline_name, run_id, found)
        flight.known.collected = Collected(tuple(resolved), tuple(serving), complete=True, problems=tuple(problems))

    async def _publish_status(self, run: Run, flight: Flight, action: actions.PublishStatus) -> None:
        known, event = flight.known, action.event
        stored = await self._outbox.status(event)
        known.transition = max(known.transition, event.transition)
        if isinstance(stored, SlotTaken):
            return
        fault_point("status-published")
        known.published.add((event.attempt, RunState(event.state), event.time))
        if isinstance(stored.data, RunStatusEvent):  # an earlier try may have told another time
            known.published.add((event.attempt, RunState(event.state), stored.data.time))
        self._published(known)
        if event.state == RunState.RUNNING:
            self._recorder.normal(run, "Started", f"running at Provider {event.provider}")

    async def _write_status(self, run: Run, status: RunStatus) -> Run:
        before = {c.reason for c in run.status.conditions if c.type == "Ready"}
        written = await self._objects.patch_status(run, status)
        if status.cancellation is not None and run.status.cancellation is None:
            fault_point("cancel-marked")
        ready = next((c for c in written.status.conditions if c.type == "Ready"), None)
        if ready is not None and ready.status == "False" and ready.reason not in before and ready.message:
            stalled = any(c.type == "Stalled" for c in written.status.conditions)
            (self._recorder.warning if stalled else self._recorder.normal)(run, ready.reason, ready.message)
        return written

    async def _release(self, run: Run, action: actions.Release) -> Run | None:
        kept = [f for f in run.metadata.finalizers if f != self._names.finalizer]
        patch: dict[str, object] = {"finalizers": kept}
        if action.completed:
            patch["labels"] = {self._names.completed: action.completed}
        if action.warning:
            self._recorder.warning(run, "Released", action.warning)
        released = await self._objects.patch_metadata(run, patch)
        fault_point("released")
        return None if run.metadata.deletion_timestamp is not None and not kept else released

    async def _fresh(self, run: Run) -> Run | None:
        key = Key("Run", run.metadata.namespace, run.metadata.name)
        try:
            fresh = await self._objects.get(key)
        except NotFound:
            self._store.drop(key)
            return None
        self._store.put(fresh)
        return fresh if isinstance(fresh, Run) and fresh.metadata.uid == run.metadata.uid else None

    def _backend(self, flight: Flight) -> Backend:
        backend = self._backends.get(flight.provider)
        if backend is None:
            raise Retryable(f"Provider {flight.provider} is not open", reason="ProviderNotReady")
        return backend

    def _published(self, known: Knowledge) -> None:
        known.published_at = self._now()
        known.bus_away_since = None

    def _forget_published(self, known: Knowledge) -> None:
        known.published.clear()
        known.completed.clear()
        known.transition = 0
        known.published_at = None
        known.fresh = known.recalled = False
        known.overdue = True

    def _put_off(self, flight: Flight, action: Action) -> float:
        until = flight.not_before.get(type(action))
        return (until - self._now()).total_seconds() if until is not None else 0.0

    def _back_off(self, flight: Flight, kind: type, most: float, *, after: float | None = None) -> None:
        failures = flight.failures[kind] = flight.failures.get(kind, 0) + 1
        delay = after if after is not None else backoff(failures, most=most)
        flight.not_before[kind] = self._now() + timedelta(seconds=delay)

    def _tell_end(self, run: Run, flight: Flight, state: str, message: str) -> None:
        update = flight.known.update
        if update is not None and update.start_time is not None and update.end_time is not None:
            self._metrics.run_duration.labels(state=state).observe((update.end_time - update.start_time).total_seconds())
        if state == RunState.SUCCEEDED:
            self._recorder.normal(run, "Succeeded", "succeeded; its completion event is stored")
        elif flight.known.refusal is None:  # that was told when it happened, with its reason
            self._recorder.warning(run, state.capitalize(), message or state)
