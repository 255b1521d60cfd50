"""Decides what to do next for a Run. Pure: the object, what this process knows, the clock in; one step out.

A Run is taken through: wait for its Pipeline, Provider and parameters -> `Bind` (finalizer, and the version it runs, durable before
anything happens at the backend) -> `Submit` -> every state the backend reports is published (`PublishStatus`), the end with
`PublishCompletion` -> the projector turns those events into status -> `Release`. A run that failed and is tried again goes from the
run-status `retrying` back to `Submit`; one that is re-opened at the backend after its Run had settled is taken up again with `Reopen`.

The difference between status and observation is the outbox: nothing that was published is remembered durably, because after a
crash the comparison runs again and the bus refuses what it has. So every step may be repeated, and none depends on an earlier one
having been recorded anywhere but in the object, at the backend or on the bus.

What keeps a Run from its submission is in `blockers`, whether and when it is tried again in `retry`, how it is told in `telling`.
"""

from datetime import datetime, timedelta

from kfp_operator.api import conditions
from kfp_operator.api.run import Cancellation
from kfp_operator.api.states import FINAL, RunState, SyncState
from kfp_operator.providers.protocol import RunUpdate
from kfp_operator.reconcile import outcome, retry
from kfp_operator.reconcile.actions import (
    Bind,
    CancelRun,
    Collect,
    Decision,
    DeleteRun,
    Lookup,
    Recall,
    Release,
    Reopen,
    Submit,
    WriteStatus,
)
from kfp_operator.reconcile.attempts import shown
from kfp_operator.reconcile.blockers import Blocker, blocked, provider_blocker, resolved
from kfp_operator.reconcile.outcome import Collected, Refusal
from kfp_operator.reconcile.situation import Situation
from kfp_operator.reconcile.telling import (
    await_projection,
    complete,
    ended,
    ended_without_backend,
    noted,
    publish,
    undelivered,
    waiting,
    with_deletion,
    write,
)

CANCEL_AGAIN = timedelta(seconds=30)
"""A cancel that showed no effect is sent again after this long."""
RELEASE_AFTER = timedelta(minutes=10)
"""A deletion waits at most this long for the backend, then warns and lets go."""
LOST_AFTER = timedelta(minutes=5)
"""A backend that confirmed a run and then does not know it for this long has lost it."""
COLLECTING_SHOWN_AFTER = timedelta(seconds=5)
"""Artifacts usually take less; only then is the wait worth a write."""
UNWATCHED_SHOWN_AFTER = timedelta(minutes=1)
"""A Provider that cannot be used for so long is worth a write to each of its runs in flight."""
UNWATCHED = "not watched: "
"""How the message begins that says so."""


IDLE = Decision()


def decide(s: Situation) -> Decision:
    """The next step for the Run."""
    run, names = s.run, s.names
    bound = names.finalizer in run.metadata.finalizers
    deleting = run.metadata.deletion_timestamp is not None
    if deleting and not bound and names.held(run.metadata.finalizers):
        return Decision(Release())  # what the Go operator holds, whose run is not ours
    if run.status.completion_state is not None:
        if not _reopened(s):
            return _settled(s, bound)
        if not bound:
            return IDLE if deleting else Decision(Reopen())
    if not bound:
        if deleting:
            return IDLE
        if names.completed in run.metadata.labels:
            if run.status.transition > 0:  # an earlier process told that it goes on
                return Decision(Reopen())
            return _restored(s, run.metadata.labels[names.completed])
        if (run.status.version or run.status.provider_id) and not run.status.transition:
            return _taken_on_elsewhere(s)
        return _unbound(s)
    if deleting and (release := _let_go(s)) is not None:
        return release
    return _bound(s, deleting)


def _reopened(s: Situation) -> bool:
    """Whether the backend has gone on with a run whose end its status shows."""
    return s.known.update is not None and s.known.update.attempt > s.run.status.attempt


def _restored(s: Situation, label: str) -> Decision:
    """A Run that ended before it was restored from a backup. Its state is written here: no event will tell it."""
    wishes = conditions.run_restored(f"{s.names.completed}={label}")
    return write(s, wishes, SyncState.SUCCEEDED, state=RunState(label) if label in FINAL else None)


def _taken_on_elsewhere(s: Situation) -> Decision:
    """A Run that another operator submitted, or failed to: of ours, only an event gives a Run that is not held a version or an id."""
    wishes = conditions.run_taken_on_elsewhere(s.run.status.provider_id)
    return write(s, wishes, SyncState.SUCCEEDED, wishes[0].message)


def _settled(s: Situation, bound: bool) -> Decision:
    run = s.run
    if bound:
        return Decision(Release(completed=str(run.status.state)))
    ttl = run.spec.ttl_seconds_after_finished
    if ttl is None or run.metadata.deletion_timestamp is not None:
        return IDLE
    ended_at = run.status.end_time or run.metadata.creation_timestamp or s.now
    left = (ended_at + timedelta(seconds=ttl) - s.now).total_seconds()
    return Decision(DeleteRun()) if left <= 0 else Decision(again=left)


def _unbound(s: Situation) -> Decision:
    run = s.run
    if run.spec.cancel:
        return Decision(Bind("", run.spec.provider))
    blocker = blocked(s)
    if blocker is not None and blocker.refused:
        return Decision(Bind("", run.spec.provider or (s.pipeline.spec.provider if s.pipeline else "")))
    if blocker is None and (unresolved := _resolve(s)) is not None:
        return unresolved
    if blocker is not None:
        return waiting(s, blocker.reason, blocker.message, stalled=blocker.stalled)
    if s.pipeline is None:  # blocked() says so before
        raise AssertionError
    return Decision(Bind(run.spec.pipeline_version or s.pipeline.status.version, s.pipeline.spec.provider))


def _resolve(s: Situation) -> Decision | None:
    """Remember what parameters with valueFrom have become, or wait for them; None: all have."""
    found = resolved(s)
    if isinstance(found, Blocker):
        return waiting(s, found.reason, found.message, stalled=found.stalled)
    if found != s.run.status.resolved:
        return Decision(WriteStatus(s.run.status.model_copy(update={"resolved": found})), again=0)
    return None


def _let_go(s: Situation) -> Decision | None:
    """How a deleted Run leaves without its end being seen; None: it must be stopped and its end published first."""
    run, known = s.run, s.known
    if s.names.force_release in run.metadata.annotations:
        return Decision(Release(warning=f"released by annotation {s.names.force_release}; its end at the backend was not waited for"))
    if run.spec.deletion_policy == "Orphan":
        return Decision(Release())
    told = run.status.transition > 0 or bool(known.published) or known.telling
    if known.refusal is None and known.update is None and not known.submitted and not told:
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
    known = s.known
    if not known.fresh and not known.recalled:
        return _without_bus(s, deleting) or Decision(Recall())
    if ended(s):
        return await_projection(s, None)
    if known.refusal is not None:
        return ended_without_backend(s, known.refusal)
    if known.update is not None:
        return _observed(s, known.update, deleting)
    if known.submitted or _on_record(s):
        if known.absent_since is not None and (moved := _moved(s)):
            return noted(s, f"{moved}, which does not know the run; change it back, or delete the Run") or _lookup(s)
        if known.absent_since is not None and s.now - known.absent_since >= LOST_AFTER:
            return ended_without_backend(s, Refusal("BackendRunGone", "the backend no longer knows the run it had confirmed"))
        return _lookup(s)
    if (stop := _stop_before_submission(s, deleting)) is not None:
        return stop
    return _submit(s)


def _on_record(s: Situation) -> bool:
    """Whether an event told that the backend has the current submission."""
    status, current = s.run.status, s.known.current
    if current.number == 1:
        return bool(status.provider_id) or status.transition > 0
    return status.attempt >= current.first_attempt


def _stop_before_submission(s: Situation, deleting: bool) -> Decision | None:
    """End a Run that nobody wants any more, or whose time is over, before it is submitted, or submitted again."""
    run, known = s.run, s.known
    again = " again" if known.current.number > 1 else ""
    over = retry.deadline(run, None)
    if run.spec.cancel or deleting:
        refusal = Refusal("Cancelled", f"cancelled before it was submitted{again}", state=RunState.STOPPED)
    elif over is not None and over <= s.now:
        refusal = Refusal("DeadlineExceeded", outcome.too_long(run))
    else:
        return None
    if _version(s) and not known.fresh and known.absent_since is None:
        return _lookup(s)
    return ended_without_backend(s, refusal)


def _submit(s: Situation) -> Decision:
    """Submit the Run, the first time or again, as soon as nothing keeps it from that."""
    run, known = s.run, s.known
    version = _version(s)
    if not version:
        blocker = blocked(s)
        if blocker is not None and blocker.refused:
            return ended_without_backend(s, Refusal(blocker.reason, blocker.message))
        return ended_without_backend(s, Refusal("InvalidBinding", f"label {s.names.pipeline_version} is missing; create the Run again"))
    if shown(run.status) < known.current:
        return await_projection(s, None)  # durable in status as well as on the bus, before anything happens at the backend
    due = retry.due(run, known)
    if due is not None and due > s.now:
        over = retry.deadline(run, None)
        return Decision(again=((due if over is None else min(due, over)) - s.now).total_seconds())
    if (unresolved := _resolve(s)) is not None:
        return unresolved
    blocker = provider_blocker(s, run.metadata.annotations.get(s.names.provider, ""))
    if blocker is not None:
        return waiting(s, blocker.reason, blocker.message, stalled=blocker.stalled)
    if not known.fresh and (moved := _moved(s)):
        if known.absent_since is None:
            return _lookup(s)
        message = f"{moved}; whether the run was submitted before cannot be told, so it is not submitted again: create the Run again"
        return ended_without_backend(s, Refusal("SubmissionUnknown", message))
    if known.trouble:
        reason = known.trouble_reason or "SubmitRetrying"
        return waiting(s, reason, f"the submission is retried: {known.trouble}", then=Submit(version))
    return Decision(Submit(version))


def _moved(s: Situation) -> str:
    """That the Run's Provider speaks to another backend than the one the Run is bound to; "": it does not, or there is only one."""
    bound = s.run.metadata.annotations.get(s.names.backend, "")
    if s.provider is None or not s.provider.usable or not bound or s.provider.backend in ("", bound):
        return ""
    name = outcome.provider_of(s.run, s.names)
    return f"Provider {name} was changed from {bound} to {s.provider.backend}"


def _version(s: Situation) -> str:
    """The version that the Run is bound to; without one it was bound only to be told as ended, and is never submitted."""
    return s.run.metadata.labels.get(s.names.pipeline_version, "")


def _lookup(s: Situation) -> Decision:
    deleting = s.run.metadata.deletion_timestamp is not None
    if s.provider is None or not s.provider.usable:
        status = with_deletion(s, deleting)
        if status != s.run.status:
            return Decision(WriteStatus(status), again=10)
        return Decision(again=10) if deleting else (_unwatched(s, None) or Decision(again=10))
    if s.known.absent_since is not None and _on_record(s):
        return Decision(Lookup(), again=30)
    return Decision(Lookup(), again=10)


def _observed(s: Situation, update: RunUpdate, deleting: bool) -> Decision:
    """Publish what the backend reported and status does not show; stop the run if that is wanted."""
    run, known = s.run, s.known
    if (first := _without_bus(s, deleting)) is not None:
        return first
    if known.promised is not None and known.promised.attempt < update.attempt and known.promised.attempt not in known.completed:
        return complete(s, outcome.completion_of(run, s.names, known.promised))
    again = retry.why_again(run, known, update, s.now)
    report = outcome.translated(run, update, known.published, again)
    changes = outcome.unpublished(run, report, known.published)
    if changes and not changes[0].state.completes:
        following = known.current.next(update.attempt) if again and len(changes) == 1 else None
        return publish(s, report, changes[0], following)
    if update.state.completes:
        if update.state is RunState.SUCCEEDED and known.collected is None:
            return _collect(s, update)
        if changes:
            return publish(s, report, changes[0])
        return complete(s, outcome.completion(run, s.names, report, known.current, known.collected))
    stop = _stop(s, update, deleting)
    return stop if stop.action is not None else await_projection(s, stop.again)


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
        return undelivered(s)
    message = "waits for the event bus, which may hold news of this run"
    if not deleting:
        return waiting(s, "EventBusUnavailable", message, then=Recall())
    if not in_flight:
        return write(s, conditions.run_deleting(run.status.conditions, message), SyncState.DELETING, message, then=Recall())
    return None


def _stop(s: Situation, update: RunUpdate, deleting: bool) -> Decision:
    """Stop a run that is in flight, if somebody wants it or its time is over; no action: there is nothing to do now."""
    run, known = s.run, s.known
    waits: list[float] = []
    reason = None
    over = retry.deadline(run, update)
    marked = outcome.cancellation_of(run, update.attempt)
    if marked is not None:
        reason = marked.reason
    elif deleting:
        reason = "Deleted"
    elif run.spec.cancel:
        reason = "Cancelled"
    elif over is not None:
        left = (over - s.now).total_seconds()
        if left <= 0:
            reason = "DeadlineExceeded"
        else:
            waits.append(left)
    status = with_deletion(s, deleting)
    if reason is not None:
        if marked is None:
            mark = Cancellation(reason=reason, time=s.now.replace(microsecond=0), attempt=update.attempt)
            return Decision(WriteStatus(status.model_copy(update={"cancellation": mark})))
        if known.cancel_sent is None or s.now - known.cancel_sent >= CANCEL_AGAIN:
            return Decision(CancelRun(), again=CANCEL_AGAIN.total_seconds())
        waits.append((known.cancel_sent + CANCEL_AGAIN - s.now).total_seconds())
    if status != run.status:
        return Decision(WriteStatus(status))
    if not deleting and (unwatched := _unwatched(s, update)) is not None:
        if unwatched.action is not None:
            return unwatched
        waits += [unwatched.again] if unwatched.again is not None else []
    return Decision(again=min(waits, default=None))


def _unwatched(s: Situation, update: RunUpdate | None) -> Decision | None:
    """Say in a run in flight that its Provider cannot be used, once that lasts, and no longer when it can."""
    shows = s.run.status.message.startswith(UNWATCHED)
    if s.provider is not None and s.provider.usable:
        return noted(s, update.message[:1024] if update is not None else "") if shows else None
    name = outcome.provider_of(s.run, s.names)
    if s.provider is None:
        return noted(s, f"{UNWATCHED}Provider {name} does not exist; what is shown may have changed")
    since = _unusable_since(s)
    if not shows and (since is None or s.now - since < UNWATCHED_SHOWN_AFTER):
        left = UNWATCHED_SHOWN_AFTER - (s.now - since) if since is not None else UNWATCHED_SHOWN_AFTER
        return Decision(again=left.total_seconds())
    why = s.provider.message or "it is not ready"
    return noted(s, f"{UNWATCHED}Provider {name}: {why}; what is shown may have changed") if not shows else None


def _unusable_since(s: Situation) -> datetime | None:
    ready = conditions.find(s.provider.resource.status.conditions, "Ready") if s.provider is not None else None
    return ready.last_transition_time if ready is not None and ready.status != "True" else None


def _collect(s: Situation, update: RunUpdate) -> Decision:
    ended_at = update.end_time or update.history[-1].time
    if s.now - ended_at >= s.artifact_deadline:
        s.known.collected = Collected(complete=False)
        return _observed(s, update, s.run.metadata.deletion_timestamp is not None)
    if s.now - ended_at >= COLLECTING_SHOWN_AFTER and (shown_first := noted(s, "collecting artifacts")) is not None:
        return shown_first
    return Decision(Collect(), again=5)
