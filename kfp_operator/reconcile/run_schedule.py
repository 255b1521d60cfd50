"""Decides what to do next for a RunSchedule. Pure: the object, its Runs and the clock in; one step out.

Each tick makes one Run, named after the schedule and the tick. `status.scheduledUntil` says up to when ticks are dealt with, and each
step leaves it so that the next may be the first of another process:

1. `StartRun` creates the Run of the earliest tick that is due. Repeated, it finds the Run that is there.
2. `WriteScheduleStatus` moves `scheduledUntil` to the latest tick that has a Run, or past ticks that are to have none.
3. `DeleteRuns` enforces the history limits, once status says all there is to say: until it says that a tick is dealt with, the Run
   itself does.

An edit of the schedule, its suspension and its resumption move `scheduledUntil` to the present: they start nothing for the past.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from kfp_operator.api import conditions, hashing
from kfp_operator.api.clip import clip
from kfp_operator.api.conditions import Wish
from kfp_operator.api.names import Names
from kfp_operator.api.run_schedule import RunSchedule, RunScheduleStatus
from kfp_operator.api.schedule import MAX_OWNER_NAME
from kfp_operator.api.states import SyncState
from kfp_operator.errors import InvalidSpec
from kfp_operator.reconcile import history
from kfp_operator.reconcile.schedule import Due, Timetable, due, identity, parse, rfc3339
from kfp_operator.reconcile.starting import OwnedRun, Trigger, Verdict, active_runs, admit, run_manifest, tick_name

LOOK_AGAIN = 3600.0
"""Seconds after which a schedule is looked at though no tick is near."""


@dataclass(frozen=True, slots=True)
class Refused:
    """What the API server did not take last."""

    reason: str
    """CamelCase word for the condition."""
    message: str
    not_before: datetime
    """When it is tried again."""
    failures: int


@dataclass(frozen=True, slots=True)
class ScheduleSituation:
    """All that a decision depends on."""

    schedule: RunSchedule
    runs: Sequence[OwnedRun]
    """The Runs that it controls."""
    refused: Refused | None
    prune_after: datetime | None
    """When Runs may be deleted again after that failed."""
    now: datetime
    names: Names


@dataclass(frozen=True, slots=True)
class Told:
    """A Kubernetes Event."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class StartRun:
    """Create the Run of a tick, unless it is there."""

    tick: datetime
    manifest: dict[str, Any]
    told: tuple[Told, ...] = ()
    """What is told once it is created."""

    @property
    def name(self) -> str:
        """The Run's."""
        return str(self.manifest["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class StopRuns:
    """Cancel Runs that a newer one replaces."""

    runs: tuple[OwnedRun, ...]
    tick: datetime


@dataclass(frozen=True, slots=True)
class DeleteRuns:
    """Delete ended Runs beyond the history limits."""

    runs: tuple[OwnedRun, ...]


@dataclass(frozen=True, slots=True)
class WriteScheduleStatus:
    """Patch the status to this, then tell what happened."""

    status: RunScheduleStatus
    told: tuple[Told, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseSchedule:
    """Take off the finalizer that the Go operator has put on."""

    told: tuple[Told, ...] = ()


ScheduleAction = StartRun | StopRuns | DeleteRuns | WriteScheduleStatus | ReleaseSchedule


@dataclass(frozen=True, slots=True)
class ScheduleDecision:
    """The next step, if any, and when to look again though nothing changed (seconds)."""

    action: ScheduleAction | None = None
    again: float | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the clock and the spec ask for."""

    wishes: list[Wish]
    sync: SyncState = SyncState.SUCCEEDED
    changes: dict[str, Any] = field(default_factory=dict)
    """Of status."""
    told: tuple[Told, ...] = ()
    action: StartRun | StopRuns | None = None
    """What is done before status is written, but not before it says what was refused."""
    again: float | None = None


def _scheduled_elsewhere(schedule: RunSchedule) -> tuple[Told, ...]:
    """The Go operator's schedule at the backend, which is not ours to end: ours are Runs that this operator starts."""
    found = schedule.status.provider_id
    if not found:
        return ()
    message = f"the Go operator has made schedule {found} at the backend, which goes on starting runs: delete it there"
    return (Told("ScheduledElsewhere", message, warning=True),)


def decide_run_schedule(s: ScheduleSituation) -> ScheduleDecision:
    """The next step for the RunSchedule."""
    if s.schedule.metadata.deletion_timestamp is not None:
        if s.names.held(s.schedule.metadata.finalizers):
            return ScheduleDecision(ReleaseSchedule(_scheduled_elsewhere(s.schedule)))
        return ScheduleDecision()  # its Runs are deleted by the garbage collector, as the user asked for
    plan = _plan(s)
    waiting = s.refused is not None and plan.action is not None and s.now < s.refused.not_before
    if plan.action is not None and s.refused is None:
        return ScheduleDecision(plan.action, plan.again)
    status, told = _status(s, plan)
    if status != s.schedule.status:
        found = _scheduled_elsewhere(s.schedule) if s.schedule.status.in_go_form else ()
        return ScheduleDecision(WriteScheduleStatus(status, (*told, *found)), again=0)
    if plan.action is not None and not waiting:
        return ScheduleDecision(plan.action, plan.again)
    again = plan.again
    if waiting and s.refused is not None:
        again = _sooner(again, s.refused.not_before, s.now)
    spec = s.schedule.spec
    surplus = history.surplus(s.runs, successful=spec.successful_runs_history_limit, failed=spec.failed_runs_history_limit)
    if surplus and s.prune_after is not None and s.now < s.prune_after:
        return ScheduleDecision(again=_sooner(again, s.prune_after, s.now))
    return ScheduleDecision(DeleteRuns(tuple(surplus)) if surplus else None, again)


def tick_of(schedule: RunSchedule, run: OwnedRun) -> datetime | None:
    """The tick a Run was made for, from its name; None: it was made otherwise, and given to the schedule."""
    prefix, _, number = run.name.rpartition("-")
    if prefix != schedule.metadata.name or not (number.isascii() and number.isdecimal()) or len(number) > 11:
        return None
    return datetime.fromtimestamp(int(number), UTC)


def _plan(s: ScheduleSituation) -> _Plan:
    schedule, status = s.schedule, s.schedule.status
    owner = next((o for o in schedule.metadata.owner_references if o.controller and o.kind == "RunConfiguration"), None)
    if owner is not None:  # the Go operator made it; RunConfigurations of ours follow their schedules themselves
        why = f"RunConfiguration {owner.name}, which controls it, starts the runs of its schedules itself: this object can be deleted"
        return _Plan(conditions.scheduling("Superseded", why), changes=_out_of_force() | {"queued_time": None})
    try:
        timetable = _understood(schedule)
    except InvalidSpec as error:
        told = (Told(error.reason, str(error), warning=True),) if status.message != str(error) else ()
        return _Plan(conditions.failed(error.reason, str(error)), SyncState.FAILED, _out_of_force(), told)
    if schedule.spec.suspend:
        told = (Told("Suspended", "no runs are started until spec.suspend is false"),) if status.schedule else ()
        given_up = (Told("RunSkipped", f"{tick_text(status.queued_time)} waited and is given up: suspended"),) if status.queued_time else ()
        return _Plan(
            conditions.scheduling("Suspended", "spec.suspend is true: no runs are started"),
            changes=_out_of_force() | {"queued_time": None},
            told=(*told, *given_up),
        )
    return _in_force(s, timetable)


def _understood(schedule: RunSchedule) -> Timetable:
    if len(schedule.metadata.name) > MAX_OWNER_NAME:
        why = f"has more than {MAX_OWNER_NAME} characters, and Runs are named after it; create the RunSchedule under a shorter name"
        raise InvalidSpec(why, field="metadata.name", reason="NameTooLong")
    return parse(schedule.spec.schedule)


def _out_of_force() -> dict[str, Any]:
    return {"schedule": "", "next_schedule_time": None}


def _in_force(s: ScheduleSituation, timetable: Timetable) -> _Plan:
    """What a schedule that is to be followed asks for."""
    schedule, spec, status, now = s.schedule, s.schedule.spec, s.schedule.status, s.now
    changes: dict[str, Any] = {"schedule": identity(spec.schedule)}
    told: list[Told] = []
    base = status.scheduled_until or schedule.metadata.creation_timestamp or now
    started = [tick for run in s.runs if (tick := tick_of(schedule, run)) is not None and base < tick <= now]
    if started:
        base = changes["scheduled_until"] = changes["last_schedule_time"] = max(started)
    if (status.observed_generation > 0 or status.in_go_form) and status.schedule != changes["schedule"]:
        base = changes["scheduled_until"] = now.replace(microsecond=0)
        why = "changed" if status.schedule else "resumed"
        told.append(Told("ScheduleChanged", f"the schedule is {why}: {changes['schedule']}; ticks before {rfc3339(base)} start nothing"))
    queued = status.queued_time
    if queued is not None and (started or any(run.name == tick_name(schedule.metadata.name, queued) for run in s.runs)):
        changes = {"last_schedule_time": queued} | changes | {"queued_time": None}  # it was started, or a later one in its place
        queued = None
    found = due(
        timetable,
        last=base,
        now=now,
        deadline=_seconds(spec.starting_deadline_seconds),
        catch_up="Latest" if spec.concurrency_policy == "Replace" else spec.catch_up,  # each would stop the one before
    )
    if found.clock_error:
        changes["scheduled_until"] = now.replace(microsecond=0)
        message = (
            f"ticks up to {rfc3339(base)} were dealt with, which is yet to come: the clock was wrong then, or is now; going on from now"
        )
        told.append(Told("ClockSetBack", message, warning=True))
    changes["next_schedule_time"] = found.next
    plan = _Plan(_ready(s, found), changes=changes, told=tuple(told), again=_again(s, found))
    if started:
        return replace(plan, again=0)  # written before anything else is started
    if found.run:
        return _due(s, plan, found)
    if found.until is not None:
        plan.changes["scheduled_until"] = found.until
        return replace(plan, told=(*plan.told, *_missed(found)))
    return plan if queued is None else _queued(s, plan, queued)


def _due(s: ScheduleSituation, plan: _Plan, found: Due) -> _Plan:
    """Ticks are to be run now."""
    tick, policy = found.run[0], s.schedule.spec.concurrency_policy
    admission = admit(policy, s.runs, tick_name(s.schedule.metadata.name, tick))
    match admission.verdict:
        case Verdict.START:
            return _refusable(s, replace(plan, action=_start(s, tick, _missed(found))))
        case Verdict.STOP:
            return _refusable(s, replace(plan, action=StopRuns(admission.others, tick)))
        case Verdict.SKIP:
            skipped = Told("RunSkipped", f"{_ticks(found.run)} skipped: {admission.because} (concurrencyPolicy {policy})")
            plan.changes["scheduled_until"] = found.until
            return replace(plan, told=(*plan.told, *_missed(found), skipped))
        case Verdict.QUEUE:
            waiting = Told("RunQueued", f"{tick_text(found.run[-1])} waits: {admission.because} (concurrencyPolicy {policy})")
            plan.changes.update(scheduled_until=found.until, queued_time=found.run[-1])
            return replace(plan, told=(*plan.told, *_missed(found), waiting))


def _queued(s: ScheduleSituation, plan: _Plan, tick: datetime) -> _Plan:
    """A tick waits for the others to end."""
    deadline = _seconds(s.schedule.spec.starting_deadline_seconds)
    if deadline is not None and s.now > tick + deadline:
        plan.changes["queued_time"] = None
        late = Told("MissedSchedule", f"{tick_text(tick)} waited for longer than startingDeadlineSeconds and is given up", warning=True)
        return replace(plan, told=(*plan.told, late))
    admission = admit(s.schedule.spec.concurrency_policy, s.runs, tick_name(s.schedule.metadata.name, tick))
    match admission.verdict:
        case Verdict.START:
            return _refusable(s, replace(plan, action=_start(s, tick, ())))
        case Verdict.STOP:
            return _refusable(s, replace(plan, action=StopRuns(admission.others, tick)))
        case Verdict.SKIP:
            plan.changes["queued_time"] = None
            return replace(plan, told=(*plan.told, Told("RunSkipped", f"{tick_text(tick)} skipped: {admission.because}")))
        case Verdict.QUEUE:
            again = _sooner(plan.again, tick + deadline + timedelta(seconds=1), s.now) if deadline is not None else plan.again
            waiting = conditions.scheduling("Scheduled", f"{tick_text(tick)} waits: {admission.because}")
            return replace(plan, wishes=waiting, again=again)


def _refusable(s: ScheduleSituation, plan: _Plan) -> _Plan:
    """Something is to be done that may have been refused before, which is shown until it is done."""
    if s.refused is None:
        return plan
    return replace(plan, wishes=conditions.start_refused(s.refused.reason, s.refused.message))


def _start(s: ScheduleSituation, tick: datetime, missed: tuple[Told, ...]) -> StartRun:
    schedule, name = s.schedule, tick_name(s.schedule.metadata.name, tick)
    trigger = Trigger("schedule", schedule.metadata.name, schedule.metadata.namespace, tick)
    spec = schedule.spec.template.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    manifest = run_manifest(schedule, s.names, name=name, spec=spec, trigger=trigger)
    return StartRun(tick, manifest, (*missed, Told("RunStarted", f"Run {name} for {tick_text(tick)}")))


def _missed(found: Due) -> tuple[Told, ...]:
    if not found.missed:
        return ()
    start = "they came" if found.missed > 1 else "it came"
    message = f"{found.missed_text} tick{'s' if found.missed > 1 else ''} up to {rfc3339(found.until or found.run[0])} got no Run: "
    return (Told("MissedSchedule", message + f"{start} while none could be started", warning=True),)


def _ready(s: ScheduleSituation, found: Due) -> list[Wish]:
    if found.next is None and not found.run:
        end = s.schedule.spec.schedule.end_time
        return conditions.scheduling("Ended", f"no tick is left before endTime {rfc3339(end)}" if end else "no tick is left")
    return conditions.scheduling("Scheduled")


def _status(s: ScheduleSituation, plan: _Plan) -> tuple[RunScheduleStatus, tuple[Told, ...]]:
    """Status as it should be, and what is told when it is written."""
    schedule, before = s.schedule, s.schedule.status
    generation = schedule.metadata.generation
    active = active_runs(s.runs)
    success = history.last_success(s.runs)
    ended = success.ended.replace(microsecond=0) if success is not None and success.ended is not None else None
    update = {
        "synchronization_state": plan.sync,
        "provider": schedule.spec.provider,
        "message": plan.wishes[0].message,
        "observed_generation": generation,
        "conditions": conditions.apply(before.conditions, plan.wishes, generation=generation, now=s.now),
        "active": active,
        "last_successful_time": max((t for t in (before.last_successful_time, ended) if t is not None), default=None),
    }
    if plan.sync is SyncState.SUCCEEDED:
        update["version"] = hashing.run_schedule_version(schedule.spec)
    return clip(before.model_copy(update=update | plan.changes)), (*plan.told, *_ends(s))


def _ends(s: ScheduleSituation) -> tuple[Told, ...]:
    """What became of the Runs that were active when status was written last."""
    runs = {run.uid: run for run in s.runs}
    told = []
    for was in s.schedule.status.active:
        run = runs.get(was.uid)
        if run is None:
            told.append(Told("RunGone", f"Run {was.name} was deleted", warning=True))
        elif not run.active:
            told.append(Told("RunEnded", f"Run {was.name} has {run.state or 'ended'}"))
    return tuple(told)


def _again(s: ScheduleSituation, found: Due) -> float:
    return LOOK_AGAIN if found.next is None else _sooner(LOOK_AGAIN, found.next, s.now)


def _sooner(again: float | None, time: datetime, now: datetime) -> float:
    left = max((time - now).total_seconds(), 0.0)
    return left if again is None else min(again, left)


def _seconds(value: int | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)


def tick_text(tick: datetime) -> str:
    """A tick for people."""
    return f"the tick of {rfc3339(tick)}"


def _ticks(ticks: Sequence[datetime]) -> str:
    return f"{tick_text(ticks[0])} is" if len(ticks) == 1 else f"{len(ticks)} ticks from {rfc3339(ticks[0])} to {rfc3339(ticks[-1])} are"
