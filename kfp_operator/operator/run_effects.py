"""Carries out one step of a Run: a patch, a call of its provider, an event. `run_controller` decides when, and what a failure means."""

import logging
from collections.abc import Callable, Mapping

from kfp_operator.api.names import Names, label_value
from kfp_operator.api.run import Run, RunStatus
from kfp_operator.api.states import RunState
from kfp_operator.errors import NotFound, Permanent, Retryable
from kfp_operator.events import artifacts
from kfp_operator.events.publisher import SlotTaken
from kfp_operator.operator.backends import Backend, Backends
from kfp_operator.operator.faults import fault_point
from kfp_operator.operator.flights import Flight
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.outbox import Outbox
from kfp_operator.operator.ports import Now, Objects, Recorder, Revisions
from kfp_operator.operator.store import Key
from kfp_operator.providers import ir
from kfp_operator.providers.protocol import PipelineVersion, RunUpdate, Submission
from kfp_operator.reconcile import actions, retry
from kfp_operator.reconcile.actions import Action
from kfp_operator.reconcile.blockers import filled_in
from kfp_operator.reconcile.outcome import Collected, Refusal
from kfp_operator.reconcile.situation import Knowledge
from kfp_operator.schemas import RunCompletion
from kfp_operator.schemas import RunStatus as RunStatusEvent

log = logging.getLogger(__name__)


class RunEffects:
    """What can be done about a Run."""

    def __init__(
        self,
        *,
        objects: Objects,
        revisions: Revisions,
        backends: Backends,
        outbox: Outbox,
        recorder: Recorder,
        metrics: Metrics,
        now: Now,
        names: Names,
        project: Callable[[RunStatusEvent | RunCompletion], None],
    ) -> None:
        self._objects = objects
        self._revisions = revisions
        self._backends = backends
        self._outbox = outbox
        self._recorder = recorder
        self._metrics = metrics
        self._now = now
        self._names = names
        self._project = project

    async def act(self, run: Run, flight: Flight, action: Action | None) -> Run | None:
        """Do it. Returns the Run as it is then; None: it is gone. Raises what the API server, the provider or the bus answers."""
        known = flight.known
        match action:
            case actions.Bind():
                return await self._bind(run, flight, action)
            case actions.Recall():
                await self._recall(run, known)
            case actions.Submit():
                await self._submit(run, flight, action)
            case actions.Lookup():
                self._found(run, known, await self._backend(flight).provider.get_run(flight.submission))
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
            case actions.Reopen():
                return await self._reopen(run)
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
            "finalizers": [*names.released(run.metadata.finalizers), names.finalizer],
            "labels": labels,
            "annotations": {names.provider: action.provider} | self._backend_of(action.provider),
        }
        bound = await self._objects.patch_metadata(run, patch)
        fault_point("bound")
        flight.known.fresh = True
        return bound

    async def _reopen(self, run: Run) -> Run:
        patch: Mapping[str, object] = {
            "finalizers": [*self._names.released(run.metadata.finalizers), self._names.finalizer],
            "labels": {self._names.completed: None},
        }
        reopened = await self._objects.patch_metadata(run, patch)
        fault_point("reopened")
        self._recorder.normal(run, "Reopened", "its run goes on at the backend, where it was re-opened")
        return reopened

    async def _recall(self, run: Run, known: Knowledge) -> None:
        meta = run.metadata
        stored = await self._outbox.recall(meta.namespace, meta.name, meta.uid)
        known.recalled, known.bus_away_since = True, None
        if stored.completion is not None:
            known.completed.add(stored.completion.attempt)
            known.published_at = self._now()
        if stored.status is not None:
            known.hear(stored.status)
            known.turn(run.status)
            known.published_at = self._now()
            told = RunState(stored.status.state)
            if told.completes and not stored.status.run_id:  # it ended before it reached the backend: that stands
                known.refusal = Refusal("Refused", stored.status.message, told)
            elif told.completes and stored.status.attempt not in known.completed:
                known.promised = stored.status
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
            attempt=flight.known.current.first_attempt,
            pipeline=PipelineVersion(namespace, pipeline_name, action.version, compiled.spec, compiled.platform_spec),
            parameters=ir.bind_parameters(compiled, filled_in(run.spec.parameters, run.status.resolved)),
            experiment=run.spec.experiment_name,
            first_try=flight.known.fresh or flight.announced == flight.known.current.number,
        )
        backend = self._backend(flight)
        # from here on the backend may have it, whatever the answer: who cancels or deletes the Run asks it first
        flight.known.fresh, flight.known.recalled, flight.known.absent_since = False, True, None
        flight.announced = 0
        provider_id = await backend.provider.submit_run(submission)
        fault_point("submitted")
        flight.known.submitted = True
        flight.known.trouble = flight.known.trouble_reason = ""
        self._recorder.normal(run, "Submitted", f"submitted to Provider {flight.provider} as {provider_id}")
        if flight.known.update is None and flight.submission not in backend.latest:
            self._found(run, flight.known, await backend.provider.get_run(flight.submission))

    async def _collect(self, run: Run, flight: Flight) -> None:
        found = await self._backend(flight).provider.artifacts(flight.submission)
        resolved, problems = artifacts.resolve(run.spec.artifacts, found)
        run_id = flight.known.update.provider_id if flight.known.update else ""
        serving = artifacts.serving_model_artifacts(run.spec.pipeline_name, run_id, found)
        flight.known.collected = Collected(tuple(resolved), tuple(serving), complete=True, problems=tuple(problems))

    async def _publish_status(self, run: Run, flight: Flight, action: actions.PublishStatus) -> None:
        known, event = flight.known, action.event
        known.telling = True
        stored = await self._outbox.status(event)
        if isinstance(stored, SlotTaken):  # by an earlier process, or by a try of ours whose answer was lost
            known.hear(stored.by)
            return
        fault_point("status-published")
        if event.state == RunState.RETRYING and not stored.already:
            flight.announced = event.submission
        known.hear(event)
        if isinstance(stored.data, RunStatusEvent):  # an earlier try may have told another time
            known.hear(stored.data)
        self._published(known)
        if event.state == RunState.RUNNING:
            self._recorder.normal(run, "Started", f"running at Provider {event.provider}")
        elif event.state == RunState.RETRYING and event.attempt < event.first_attempt:
            self._recorder.warning(run, "Retrying", event.message)

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
        kept = self._names.released(run.metadata.finalizers)
        patch: dict[str, object] = {"finalizers": kept}
        if action.completed:
            patch["labels"] = {self._names.completed: action.completed}
        if action.warning:
            self._recorder.warning(run, "Released", action.warning)
        released = await self._objects.patch_metadata(run, patch)
        fault_point("released")
        return None if run.metadata.deletion_timestamp is not None and not kept else released

    def _found(self, run: Run, known: Knowledge, update: RunUpdate | None) -> None:
        """The backend's answer to the question for the current submission."""
        if update is None:
            known.absent_since = known.absent_since or self._now()
        else:
            known.absent_since = None
            retry.report(run, known, known.current.numbered(update), self._now())

    def _backend_of(self, provider: str) -> dict[str, str]:
        """Annotation that says which backend a Provider speaks to, if that may change."""
        backend = self._backends.get(provider)
        return {self._names.backend: backend.provider.backend} if backend is not None and backend.provider.backend else {}

    def _backend(self, flight: Flight) -> Backend:
        backend = self._backends.get(flight.provider)
        if backend is None:
            raise Retryable(f"Provider {flight.provider} is not open", reason="ProviderNotReady")
        return backend

    def _published(self, known: Knowledge) -> None:
        known.published_at = self._now()
        known.bus_away_since = None

    def _tell_end(self, run: Run, flight: Flight, state: str, message: str) -> None:
        update = flight.known.update
        if update is not None and update.start_time is not None and update.end_time is not None:
            self._metrics.run_duration.labels(state=state).observe((update.end_time - update.start_time).total_seconds())
        if state == RunState.SUCCEEDED:
            self._recorder.normal(run, "Succeeded", "succeeded; its completion event is stored")
        elif flight.known.refusal is None:  # that was told when it happened, with its reason
            self._recorder.warning(run, state.capitalize(), message or state)
