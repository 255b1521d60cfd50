"""Decides what to do next for a Run. Pure: the object, what this process knows, the clock in; one step out.

A Run is taken through: wait for its Pipeline and Provider -> `Bind` (finalizer, and the version it runs, durable before anything
happens at the backend) -> `Submit` -> every state the backend reports is published (`PublishStatus`), the end with
`PublishCompletion` -> the projector turns those events into status -> `Release`.

The difference between status and observation is the outbox: nothing that was published is remembered durably, because after a
crash the comparison runs again and the bus refuses what it has. So every step may be repeated, and none depends on an earlier one
having been recorded anywhere but in the object, at the backend or on the bus.
"""

from dataclasses import dataclass
from datetime import timedelta

from kfp_operator.api import conditions
from kfp_operator.api.conditions import Wish
from kfp_operator.api.provider import Provider
from kfp_operator.api.run import Cancellation, RunStatus
from kfp_operator.api.states import FINAL, RunState, SyncState
from kfp_operator.providers.protocol import RunUpdate, StateChange
from kfp_operator.reconcile import outcome
from kfp_operator.reconcile.actions import (
    Action,
    Bind,
    CancelRun,
    Collect,
    Decision,
    DeleteRun,
    Lookup,
    PublishCompletion,
    PublishStatus,
    Recall,
    Release,
    Submit,
    WriteStatus,
)
from kfp_operator.reconcile.outcome import Collected, Refusal
from kfp_operator.reconcile.situation import Situation
from kfp_operator.schemas import RunCompletion

CANCEL_AGAIN = timedelta(seconds=30)
"""A cancel that showed no effect is sent again after this long."""
RELEASE_AFTER = timedelta(minutes=10)
"""A deletion waits at most this long for the backend, then warns and lets go."""
LOST_AFTER = timedelta(minutes=5)
"""A backend that confirmed a run and then does not know it for this long has lost it."""
REPUBLISH_AFTER = timedelta(seconds=30)
"""What was published and is not projected after this long is compared with the bus again (its stream may have been deleted)."""
COLLECTING_SHOWN_AFTER = timedelta(seconds=5)
"""Artifacts usually take less; only then is the wait worth a write."""


IDLE = Decision()


def decide(s: Situation) -> Decision:
    """The next step for the Run."""
    run, names = s.run, s.names
    bound = names.finalizer in run.metadata.finalizers
    deleting = run.metadata.deletion_timestamp is not None
    if run.status.completion_state is not None:
        return _settled(s, bound)
    if not bound:
        if deleting:
            return IDLE
        if names.completed in run.metadata.labels:
            return _restored(s, run.metadata.labels[names.completed])
        return _unbound(s)
    if deleting and (release := _let_go(s)) is not None:
        return release
    return _bound(s, deleting)


def _restored(s: Situation, label: str) -> Decision:
    """A Run that ended before it was restored from a backup. Its state is written here: no event will tell it."""
    wishes = conditions.run_restored(f"{s.names.completed}={label}")
    return _write(s, wishes, SyncState.SUCCEEDED, state=RunState(label) if label in FINAL else None)


def _settled(s: Situation, bound: bool) -> Decision:
    run = s.run
    if bound:
        return Decision(Release(completed=str(run.status.state)))
    ttl = run.spec.ttl_seconds_after_finished
    if ttl is None or run.metadata.deletion_timestamp is not None:
        return IDLE
    ended = run.status.end_time or run.metadata.creation_timestamp or s.now
    left = (ended + timedelta(seconds=ttl) - s.now).total_seconds()
    return Decision(DeleteRun()) if left <= 0 else Decision(again=left)


def _unbound(s: Situation) -> Decision:
    run = s.run
    if run.spec.cancel:
        return Decision(Bind("", run.spec.provider))
    blocker = blocked(s)
    if blocker is None:
        if s.pipeline is None:  # blocked() says so before
            raise AssertionError
        return Decision(Bind(run.spec.pipeline_version or s.pipeline.status.version, s.pipeline.spec.provider))
    if blocker.refused:
        return Decision(Bind("", run.spec.provider or (s.pipeline.spec.provider if s.pipeline else "")))
    return _write(s, conditions.run_waiting(blocker.reason, blocker.message, stalled=blocker.stalled), SyncState.CREATING, blocker.message)


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why a Run cannot be submitted now."""

    reason: str
    message: str
    stalled: bool = False
    """A person must act."""
    refused: bool = False
    """It can never work."""


def blocked(s: Situation) -> Blocker | None:
    """What keeps an unbound Run from its submission; None: nothing."""
    run, pipeline = s.run, s.pipeline
    namespace, name, version = run.metadata.namespace, run.spec.pipeline_name, run.spec.pipeline_version
    if pipeline is None or pipeline.metadata.deletion_timestamp is not None:
        return Blocker("PipelineNotFound", f"waits for Pipeline {namespace}/{name}, which does not exist; create it and the run starts")
    if run.spec.provider and run.spec.provider != pipeline.spec.provider:
        return Blocker(
            "ProviderMismatch",
            f"spec.provider: {run.spec.provider} is not {pipeline.spec.provider}, which Pipeline {namespace}/{name} uses; leave it out",
            refused=True,
        )
    if version and version not in s.versions:
        return Blocker(
            "PipelineVersionNotFound",
            f"waits for version {version} of Pipeline {namespace}/{name}, which has {', '.join(sorted(s.versions)) or 'none yet'}",
        )
    if not version and (pipeline.status.synchronization_state is not SyncState.SUCCEEDED or not pipeline.status.version):
        why = f": {pipeline.status.message}" if pipeline.status.message else ""
        message = f"waits for Pipeline {namespace}/{name} to be synchronized{why}"
        return Blocker("PipelineNotReady", message, stalled=conditions.stalled(pipeline.status.conditions))
    return _provider_blocker(s, pipeline.spec.provider)


def _provider_blocker(s: Situation, wanted: str) -> Blocker | None:
    namespace = s.run.metadata.namespace
    if s.provider is None or s.provider.resource.metadata.deletion_timestamp is not None:
        return Blocker("ProviderNotFound", f"waits for Provider {wanted}, which does not exist; create it and the run starts")
    if not allows(s.provider.resource, namespace):
        return Blocker(
            "ProviderForbidden",
            f"Provider {wanted} does not serve namespace {namespace}; its owner can add it to spec.allowedNamespaces",
            stalled=True,
        )
    if not s.provider.usable:
        message = f"waits for Provider {wanted}: {s.provider.message or 'it is not ready'}"
        return Blocker("ProviderNotReady", message, stalled=conditions.stalled(s.provider.resource.status.conditions))
    return None


def allows(provider: Provider, namespace: str) -> bool:
    """Whether the Provider serves Runs and Pipelines of the namespace (empty list: all; type local: its own only)."""
    allowed = provider.spec.allowed_namespaces
    if namespace == provider.metadata.namespace or namespace in allowed:
        return True
    return not allowed and provider.spec.type != "local"


def _let_go(s: Situation) -> Decision | None:
    """How a deleted Run leaves without its end being seen; None: it must be stopped and its end published first."""
    run, known = s.run, s.known
    if s.names.force_release in run.metadata.annotations:
        return Decision(Release(warning=f"released by annotation {s.names.force_release}; its end at the backend was not waited for"))
    if run.spec.deletion_policy == "Orphan":
        return Decision(Release())
    if known.refusal is None and known.update is None and not known.submitted and not run.status.provider_id:
        if known.fresh or known.absent_since is not None:
            return Decision(Release())  # never submitted: vanishes without an event
        if not _version(s):
            return Decision(Release()) if known.recalled else None  # an end without a backend may have been told: then it is completed
        if s.provider is None:
            return Decision(Release(warning="its Provider is gone, so its run could not be stopped"))
    if s.provider is None and known.update is None and known.refusal is None:
        return Decision(Release(warning="its Provider is gone, so its run could not be stopped"))
    deleted = run.metadata.deletion_timestamp or s.now
    if s.now - deleted > RELEASE_AFTER:
        minutes = int(RELEASE_AFTER.total_seconds() // 60)
        return Decision(Release(warning=f"the backend did not report its end within {minutes} minutes of the deletion"))
    return None


def _bound(s: Situation, deleting: bool) -> Decision:
    run, known = s.run, s.known
    if not known.fresh and not known.recalled:
        return _without_bus(s, deleting) or Decision(Recall())
    if outcome.attempt_of(run) in known.completed:
        return _await_projection(s, None)
    if known.refusal is not None:
        return _ended_without_backend(s, known.refusal)
    if known.update is not None:
        return _observed(s, known.update, deleting)
    on_record = bool(run.status.provider_id) or run.status.transition > 0
    if known.submitted or on_record:
        if known.absent_since is not None and s.now - known.absent_since >= LOST_AFTER:
            return _ended_without_backend(s, Refusal("BackendRunGone", "the backend no longer knows the run it had confirmed"))
        return _lookup(s)
    if run.spec.cancel or deleting:
        if _version(s) and not known.fresh and known.absent_since is None:
            return _lookup(s)
        return _ended_without_backend(s, Refusal("Cancelled", "cancelled before it was submitted", state=RunState.STOPPED))
    version = _version(s)
    if not version:
        blocker = blocked(s)
        if blocker is not None and blocker.refused:
            return _ended_without_backend(s, Refusal(blocker.reason, blocker.message))
        return _ended_without_backend(s, Refusal("InvalidBinding", f"label {s.names.pipeline_version} is missing; create the Run again"))
    blocker = _provider_blocker(s, run.metadata.annotations.get(s.names.provider, ""))
    if blocker is None and known.trouble:
        blocker = Blocker(known.trouble_reason or "SubmitRetrying", f"the submission is retried: {known.trouble}")
        return _write(s, conditions.run_waiting(blocker.reason, blocker.message), SyncState.CREATING, blocker.message, then=Submit(version))
    if blocker is not None:
        return _write(
            s, conditions.run_waiting(blocker.reason, blocker.message, stalled=blocker.stalled), SyncState.CREATING, blocker.message
        )
    return Decision(Submit(version))


def _version(s: Situation) -> str:
    """The version that the Run is bound to; without one it was bound only to be told as ended, and is never submitted."""
    return s.run.metadata.labels.get(s.names.pipeline_version, "")


def _lookup(s: Situation) -> Decision:
    if s.provider is None or not s.provider.usable:
        status = _with_deletion(s, s.run.status, s.run.metadata.deletion_timestamp is not None)
        return Decision(WriteStatus(status) if status != s.run.status else None, again=10)
    if s.known.absent_since is not None and s.run.status.provider_id:
        return Decision(Lookup(), again=30)
    return Decision(Lookup(), again=10)


def _observed(s: Situation, update: RunUpdate, deleting: bool) -> Decision:
    """Publish what the backend reported and status does not show; stop the run if that is wanted."""
    run, known = s.run, s.known
    if (first := _without_bus(s, deleting)) is not None:
        return first
    changes = outcome.unpublished(run, update, known.published)
    if changes and not changes[0].state.completes:
        return _publish(s, update, changes[0])
    if update.state.completes:
        if update.state is RunState.SUCCEEDED and known.collected is None:
            return _collect(s, update)
        if changes:
            return _publish(s, update, changes[0])
        return _complete(s, outcome.completion(run, s.names, update, known.collected))
    stop = _stop(s, update, deleting)
    return stop if stop.action is not None else _await_projection(s, stop.again)


def _without_bus(s: Situation, deleting: bool) -> Decision | None:
    """What cannot wait until the bus is back: to stop a run, and to say that its events are not delivered."""
    run, known = s.run, s.known
    if known.bus_away_since is None:
        return None
    in_flight = known.update is not None and not known.update.state.completes
    if known.update is not None and in_flight:
        stop = _stop(s, known.update, deleting)
        if stop.action is not None:
            return stop
    if known.fresh or known.recalled or run.status.transition > 0:
        return _undelivered(s)
    message = "waits for the event bus, which may hold news of this run"
    if not deleting:
        waiting = conditions.run_waiting("EventBusUnavailable", message)
        return _write(s, waiting, SyncState.CREATING, message, then=Recall())
    if not in_flight:
        return _write(s, conditions.run_deleting(run.status.conditions, message), SyncState.DELETING, message, then=Recall())
    return None


def _stop(s: Situation, update: RunUpdate, deleting: bool) -> Decision:
    """Stop a run that is in flight, if somebody wants it or its time is over; no action: there is nothing to do now."""
    run, known = s.run, s.known
    waits: list[float] = []
    reason = None
    if run.status.cancellation is not None:
        reason = run.status.cancellation.reason
    elif deleting:
        reason = "Deleted"
    elif run.spec.cancel:
        reason = "Cancelled"
    elif run.spec.active_deadline_seconds is not None and update.start_time is not None:
        left = (update.start_time + timedelta(seconds=run.spec.active_deadline_seconds) - s.now).total_seconds()
        if left <= 0:
            reason = "DeadlineExceeded"
        else:
            waits.append(left)
    if reason is not None:
        if run.status.cancellation is None:
            mark = Cancellation(reason=reason, time=s.now.replace(microsecond=0))
            return Decision(WriteStatus(_with_deletion(s, run.status.model_copy(update={"cancellation": mark}), deleting)))
        if known.cancel_sent is None or s.now - known.cancel_sent >= CANCEL_AGAIN:
            return Decision(CancelRun(), again=CANCEL_AGAIN.total_seconds())
        waits.append((known.cancel_sent + CANCEL_AGAIN - s.now).total_seconds())
    if deleting:
        status = _with_deletion(s, run.status, deleting)
        if status != run.status:
            return Decision(WriteStatus(status))
    return Decision(again=min(waits, default=None))


def _with_deletion(s: Situation, status: RunStatus, deleting: bool) -> RunStatus:
    if not deleting:
        return status
    message = "its run is being stopped"
    if s.provider is None or not s.provider.usable:
        why = s.provider.message if s.provider is not None else "it does not exist"
        message = f"waits for Provider {outcome.provider_of(s.run, s.names)} to stop its run: {why or 'it is not ready'}"
    wishes = conditions.run_deleting(status.conditions, message)
    if (undelivered := conditions.find(status.conditions, "EventsDelivered")) is not None:
        wishes.append(Wish(undelivered.type, undelivered.status, undelivered.reason, undelivered.message))
    made = conditions.apply(status.conditions, wishes, generation=s.run.metadata.generation, now=s.now)
    return status.model_copy(
        update={"synchronization_state": SyncState.DELETING, "conditions": made, "observed_generation": s.run.metadata.generation}
    )


def _collect(s: Situation, update: RunUpdate) -> Decision:
    ended = update.end_time or update.history[-1].time
    if s.now - ended >= s.artifact_deadline:
        s.known.collected = Collected(complete=False)
        return _observed(s, update, s.run.metadata.deletion_timestamp is not None)
    message = "collecting artifacts"
    if s.now - ended >= COLLECTING_SHOWN_AFTER and s.run.status.message != message:
        return Decision(WriteStatus(s.run.status.model_copy(update={"message": message})), again=0)
    return Decision(Collect(), again=5)


def _ended_without_backend(s: Situation, refusal: Refusal) -> Decision:
    """The run ends though the backend does not have it: refused, cancelled before its submission, or lost."""
    run, known = s.run, s.known
    update = outcome.refused(run, refusal, s.now, known.published)
    changes = outcome.unpublished(run, update, known.published)
    if changes:
        return _publish(s, update, changes[0])
    return _complete(s, outcome.completion(run, s.names, update, Collected()))


def _publish(s: Situation, update: RunUpdate, change: StateChange) -> Decision:
    n = max(s.run.status.transition, s.known.transition) + 1
    if undelivered := _undelivered(s):
        return undelivered
    return Decision(PublishStatus(outcome.status_event(s.run, s.names, update, change, n, s.known.collected)))


def _complete(s: Situation, event: RunCompletion) -> Decision:
    if undelivered := _undelivered(s):
        return undelivered
    return Decision(PublishCompletion(event))


def _await_projection(s: Situation, wait: float | None) -> Decision:
    """All is published; it must come back as status, or be compared with the bus again."""
    if s.known.published_at is None or (not s.known.completed and s.run.status.transition >= s.known.transition):
        return _delivered(s) or Decision(again=wait)
    left = (s.known.published_at + REPUBLISH_AFTER - s.now).total_seconds()
    if left <= 0:
        return Decision(again=0, forget_published=True)
    return Decision(again=left if wait is None else min(left, wait))


def _delivered(s: Situation) -> Decision | None:
    """Show no longer that events are not delivered: the bus is back, and had nothing to be told."""
    present = s.run.status.conditions
    if s.known.bus_away_since is not None or conditions.find(present, "EventsDelivered") is None:
        return None
    kept = [Wish(c.type, c.status, c.reason, c.message) for c in present if c.type != "EventsDelivered"]
    made = conditions.apply(present, kept, generation=s.run.metadata.generation, now=s.now)
    return Decision(WriteStatus(s.run.status.model_copy(update={"conditions": made})), again=0)


def _undelivered(s: Situation) -> Decision | None:
    """Show EventsDelivered=False once the bus has been away long enough to matter."""
    since = s.known.bus_away_since
    if since is None or (s.now - since).total_seconds() < 10:
        return None
    run = s.run
    if conditions.find(run.status.conditions, "EventsDelivered") is not None:
        return None
    message = "the event bus does not store events; they are told when it does (readiness says what it lacks)"
    kept = [Wish(c.type, c.status, c.reason, c.message) for c in run.status.conditions]
    wishes = [*kept, Wish("EventsDelivered", "False", "EventBusUnavailable", message)]
    made = conditions.apply(run.status.conditions, wishes, generation=run.metadata.generation, now=s.now)
    return Decision(WriteStatus(run.status.model_copy(update={"conditions": made})), again=0)


def _write(
    s: Situation,
    wishes: list[Wish],
    sync: SyncState,
    message: str = "",
    *,
    state: RunState | None = None,
    then: Action | None = None,
    again: float | None = None,
) -> Decision:
    """Bring reconcile's part of the status up to date, or go on to `then` when it is."""
    run = s.run
    made = conditions.apply(run.status.conditions, wishes, generation=run.metadata.generation, now=s.now)
    status = run.status.model_copy(
        update={
            "synchronization_state": sync,
            "conditions": made,
            "message": message,
            "state": state or run.status.state,
            "observed_generation": run.metadata.generation,
            "provider": run.metadata.annotations.get(s.names.provider, run.status.provider),
            "pipeline_version": run.metadata.labels.get(s.names.pipeline_version, run.status.pipeline_version),
        }
    )
    if status != run.status:
        return Decision(WriteStatus(status), again=again if then is None else 0)
    return Decision(then, again=again)
