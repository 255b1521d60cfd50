"""The steps by which a Run's state is told: events to be stored, and the few things that reconcile itself writes into status. Pure."""

from datetime import timedelta

from kfp_operator.api import conditions
from kfp_operator.api.conditions import Wish
from kfp_operator.api.run import RunStatus
from kfp_operator.api.states import RunState, SyncState
from kfp_operator.providers.protocol import RunUpdate, StateChange
from kfp_operator.reconcile import outcome
from kfp_operator.reconcile.actions import Action, Decision, PublishCompletion, PublishStatus, WriteStatus
from kfp_operator.reconcile.attempts import CurrentSubmission, attempt_of
from kfp_operator.reconcile.outcome import Collected, Refusal
from kfp_operator.reconcile.situation import Situation
from kfp_operator.schemas import RunCompletion

REPUBLISH_AFTER = timedelta(seconds=30)
"""What was published and is not projected after this long is compared with the bus again (its stream may have been deleted)."""
UNDELIVERED_AFTER = timedelta(seconds=10)
"""An outage of the bus is worth a write once it has lasted so long."""


def publish(s: Situation, report: RunUpdate, change: StateChange, current: CurrentSubmission | None = None) -> Decision:
    """Store a run-status. `current`: the submission that is on from then on, else the present one."""
    n = max(s.run.status.transition, s.known.transition) + 1
    if waits := undelivered(s):
        return waits
    event = outcome.status_event(
        s.run, s.names, report, change, transition=n, current=current or s.known.current, collected=s.known.collected
    )
    return Decision(PublishStatus(event))


def complete(s: Situation, event: RunCompletion) -> Decision:
    """Store a completion."""
    return undelivered(s) or Decision(PublishCompletion(event))


def ended_without_backend(s: Situation, refusal: Refusal) -> Decision:
    """The run ends though the backend does not have it: refused, cancelled before its submission, or lost."""
    run, known = s.run, s.known
    report = outcome.refused(run, known.current, refusal, s.now, known.published)
    changes = outcome.unpublished(run, report, known.published)
    if changes:
        return publish(s, report, changes[0])
    return complete(s, outcome.completion(run, s.names, report, known.current, Collected()))


def ended(s: Situation) -> bool:
    """Whether the end of the attempt that is on is stored."""
    attempt = s.known.update.attempt if s.known.update is not None else attempt_of(s.run, s.known.current)
    return max(s.known.completed, default=0) >= attempt


def await_projection(s: Situation, wait: float | None) -> Decision:
    """All is published; it must come back as status, or be compared with the bus again."""
    status, known = s.run.status, s.known
    last = max(known.completed, default=0)
    shows_end = last < status.attempt or (last == status.attempt and (not last or status.completion_state is not None))
    if known.published_at is None or (shows_end and status.transition >= known.transition):
        return _delivered(s) or Decision(again=wait)
    left = (known.published_at + REPUBLISH_AFTER - s.now).total_seconds()
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


def undelivered(s: Situation) -> Decision | None:
    """Show EventsDelivered=False once the bus has been away long enough to matter."""
    since = s.known.bus_away_since
    if since is None or s.now - since < UNDELIVERED_AFTER:
        return None
    run = s.run
    if conditions.find(run.status.conditions, "EventsDelivered") is not None:
        return None
    message = "the event bus does not store events; they are told when it does (readiness says what it lacks)"
    kept = [Wish(c.type, c.status, c.reason, c.message) for c in run.status.conditions]
    wishes = [*kept, Wish("EventsDelivered", "False", "EventBusUnavailable", message)]
    made = conditions.apply(run.status.conditions, wishes, generation=run.metadata.generation, now=s.now)
    return Decision(WriteStatus(run.status.model_copy(update={"conditions": made})), again=0)


def write(
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


def waiting(s: Situation, reason: str, message: str, *, stalled: bool = False, then: Action | None = None) -> Decision:
    """Say what the Run waits for before its submission, then do `then`. Once events tell of it, only its message is reconcile's."""
    if s.run.status.transition == 0:
        return write(s, conditions.run_waiting(reason, message, stalled=stalled), SyncState.CREATING, message, then=then)
    return noted(s, message) or Decision(then)


def noted(s: Situation, message: str) -> Decision | None:
    """Have status.message say this; None: it does."""
    if s.run.status.message == message:
        return None
    return Decision(WriteStatus(s.run.status.model_copy(update={"message": message})), again=0)


def with_deletion(s: Situation, deleting: bool) -> RunStatus:
    """The status, with what a Run shows that is being deleted if it is."""
    status = s.run.status
    if not deleting:
        return status
    message = "its run is being stopped"
    if s.provider is None or not s.provider.usable:
        why = s.provider.message if s.provider is not None else "it does not exist"
        message = f"waits for Provider {outcome.provider_of(s.run, s.names)} to stop its run: {why or 'it is not ready'}"
    wishes = conditions.run_deleting(status.conditions, message)
    if (kept := conditions.find(status.conditions, "EventsDelivered")) is not None:
        wishes.append(Wish(kept.type, kept.status, kept.reason, kept.message))
    made = conditions.apply(status.conditions, wishes, generation=s.run.metadata.generation, now=s.now)
    return status.model_copy(
        update={"synchronization_state": SyncState.DELETING, "conditions": made, "observed_generation": s.run.metadata.generation}
    )
