"""What each trigger sees: its entry in status, the world and the clock in, the entry after and its occurrences out. Pure.

An entry remembers what the trigger has seen last (`baseline`) and of what (`subject`). What is newer becomes an occurrence in `pending`,
in the same write that moves the baseline: nothing is seen twice or missed, whatever happens between two looks. A trigger that is
new, or whose subject is another one than before, only takes a baseline. What happens while the configuration is suspended, or while it
may not refer to the other one, is passed over: the baseline moves and nothing becomes pending.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from kfp_operator.api import hashing
from kfp_operator.api.run import RunTemplate
from kfp_operator.api.run_configuration import MAX_OCCURRENCE, MAX_PENDING, EndedRun, NamedSchedule, RunConfiguration, TriggerStatus
from kfp_operator.api.states import RunState, SyncState
from kfp_operator.errors import InvalidSpec
from kfp_operator.reconcile import run_configuration_manual as manual
from kfp_operator.reconcile import schedule as cron
from kfp_operator.reconcile.run_configuration_parameters import allows, forbidden, full_name
from kfp_operator.reconcile.run_configuration_situation import ConfigurationSituation, Problem

MANUAL = "manual"
ON_PIPELINE = "onChange/pipeline"
ON_RUN_SPEC = "onChange/runSpec"
SCHEDULE = "schedule/"
CONFIGURATION = "runConfiguration/"
MAX_BY_HAND = 50
"""Starts by hand that wait: each may be as long as `MAX_OCCURRENCE`."""
PASSED_OVER = "passed over: the configuration is suspended"
STARTED_NOTHING = "started nothing: "
"""How the message begins when concurrencyPolicy let nothing be started."""
_SUSPENDED = "suspended"
"""The subject of a schedule while it is suspended: ticks are counted once, at the end, instead of one write for each."""
_RECIPE = "1"
"""The subject of the runSpec's hash. A new recipe gets a new one, so that an upgrade of the operator starts nothing."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a trigger saw."""

    entry: TriggerStatus
    problem: Problem | None = None
    next: datetime | None = None
    """When the clock brings the next occurrence."""


def look(s: ConfigurationSituation, entries: Sequence[TriggerStatus]) -> list[Looked]:
    """Look for a start by hand, then at all triggers of the spec, in its order. Entries of other triggers are not carried on."""
    before = {entry.name: entry for entry in entries}
    triggers = s.configuration.spec.triggers
    found: dict[str, Looked] = {}
    if (by_hand := _by_hand(s, before.get(MANUAL))) is not None:
        found[MANUAL] = by_hand
    for index, schedule in enumerate(triggers.schedules):
        name = schedule_name(schedule)
        found[name] = _schedule(s, schedule, before.get(name), name, f"spec.triggers.schedules[{index}]")
    if "pipeline" in triggers.on_change:
        found[ON_PIPELINE] = _on_pipeline(s, before.get(ON_PIPELINE))
    if "runSpec" in triggers.on_change:
        found[ON_RUN_SPEC] = _on_run_spec(s, before.get(ON_RUN_SPEC))
    for reference in triggers.run_configurations:
        other = full_name(reference, s.namespace)
        found[CONFIGURATION + other] = _configuration(s, other, before.get(CONFIGURATION + other))
    return _bounded([_passed_over(each) if s.suspended else each for each in found.values()])


def schedule_name(schedule: NamedSchedule) -> str:
    """The name of a schedule's trigger: given, or a hash of what it says."""
    return SCHEDULE + (schedule.name or hashlib.sha256(cron.identity(schedule).encode()).hexdigest()[:8])


def followed_run(what: str) -> tuple[str, str, int]:
    """Name, uid and attempt of the run behind an occurrence of a runConfigurations trigger; no uid when somebody wrote something else."""
    name, uid, attempt = [*what.split("/"), "", ""][:3]
    return name, uid, int(attempt) if attempt.isdecimal() else 0


def as_asked(message: str) -> bool:
    """Whether something started nothing because the spec says so, and not because it could not be helped."""
    return message == PASSED_OVER or message.startswith(STARTED_NOTHING)


def spec_hash(spec: RunTemplate) -> str:
    """What of the template is executed: pipeline, experiment and parameters; not what is reported of it, nor how it is kept."""
    parameters = [(p.name, p.value, p.value_from.to_json() if p.value_from is not None else None) for p in spec.parameters]
    told = [spec.pipeline, spec.experiment_name, sorted(([*p] for p in parameters), key=lambda p: str(p[0]))]
    return hashlib.sha256(hashing.canonical_json(told).encode()).hexdigest()[:12]


def _arrived(entry: TriggerStatus, occurrences: Sequence[str]) -> TriggerStatus:
    """The entry after occurrences."""
    new = [what for what in occurrences if what not in entry.pending]
    return entry.model_copy(update={"pending": [*entry.pending, *new]}) if new else entry


def _passed_over(looked: Looked) -> Looked:
    """What happens while the configuration is suspended, and what waited when that began."""
    entry = looked.entry
    if entry.name == MANUAL or not entry.pending:
        return looked
    return replace(looked, entry=_missed(entry.model_copy(update={"pending": []}), len(entry.pending), PASSED_OVER))


def _bounded(found: Sequence[Looked]) -> list[Looked]:
    """No more than a status can hold: what comes last starts nothing."""
    room, bounded = MAX_PENDING, []
    for looked in found:
        most = min(room, MAX_BY_HAND) if looked.entry.name == MANUAL else room
        over = len(looked.entry.pending) - most
        if over > 0:
            entry = looked.entry.model_copy(update={"pending": looked.entry.pending[:most]})
            looked = replace(looked, entry=_missed(entry, over, f"{over} more than can wait were passed over"))
        room -= len(looked.entry.pending)
        bounded.append(looked)
    return bounded


def _missed(entry: TriggerStatus, count: int, message: str) -> TriggerStatus:
    return entry.model_copy(update={"suppressed": entry.suppressed + count, "message": message}) if count else entry


# Schedules


def _schedule(s: ConfigurationSituation, schedule: NamedSchedule, before: TriggerStatus | None, name: str, field: str) -> Looked:
    now = s.now.astimezone(UTC).replace(microsecond=0)
    subject = hashlib.sha256(cron.identity(schedule).encode()).hexdigest()[:16]
    entry = before or TriggerStatus(name=name, subject=subject, baseline=cron.rfc3339(now))
    try:
        timetable = cron.parse(schedule, field=field)
    except InvalidSpec as error:
        return Looked(entry, Problem(error.reason, str(error), stalled=True))
    deadline = timedelta(seconds=schedule.starting_deadline_seconds) if schedule.starting_deadline_seconds is not None else None
    if s.suspended:
        return Looked(entry if entry.subject == _SUSPENDED else _skip(entry, timetable, now, _SUSPENDED))
    if entry.subject == _SUSPENDED:
        entry = _skip(entry, timetable, now, subject)
    elif entry.subject != subject:
        entry = entry.model_copy(update={"subject": subject, "baseline": cron.rfc3339(now)})
    found = cron.due(timetable, last=tick_of(entry.baseline, now), now=now, deadline=deadline, catch_up=schedule.catch_up)
    if found.clock_error:
        entry = entry.model_copy(update={"baseline": cron.rfc3339(now), "message": "the clock was set back: ticks are counted from now on"})
    if found.until is not None:
        entry = entry.model_copy(update={"baseline": cron.rfc3339(found.until)})
    entry = _missed(entry, found.missed, f"missed {found.missed_text} ticks")
    entry = _arrived(entry, [cron.rfc3339(tick) for tick in found.run])
    return Looked(_timely(entry, schedule, deadline, now), next=found.next)


def _skip(entry: TriggerStatus, timetable: cron.Timetable, now: datetime, subject: str) -> TriggerStatus:
    """The entry when suspension begins or ends: ticks until now start nothing."""
    passed = cron.due(timetable, last=tick_of(entry.baseline, now), now=now)
    entry = _missed(entry, passed.missed + len(passed.run), PASSED_OVER)
    return entry.model_copy(update={"subject": subject, "baseline": cron.rfc3339(now)})


def _timely(entry: TriggerStatus, schedule: NamedSchedule, deadline: timedelta | None, now: datetime) -> TriggerStatus:
    """Ticks that could not be started in time are missed like those that nobody saw."""
    if schedule.catch_up == "None" and deadline is None:
        deadline = cron.GRACE
    kept = [tick for tick in entry.pending if deadline is None or now - tick_of(tick, now) <= deadline]
    kept = kept if schedule.catch_up == "All" else kept[-1:]
    if len(kept) == len(entry.pending):
        return entry
    dropped = len(entry.pending) - len(kept)
    return _missed(entry.model_copy(update={"pending": kept}), dropped, f"missed {dropped} ticks that could not be started in time")


def tick_of(text: str, default: datetime) -> datetime:
    """The tick that an occurrence or a baseline of a schedule says."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # somebody wrote to the status
        return default


# Changes


def _on_pipeline(s: ConfigurationSituation, before: TriggerStatus | None) -> Looked:
    """A Pipeline's first version is no new one, whether the Pipeline is there before its configuration, after it or again."""
    entry = before or TriggerStatus(name=ON_PIPELINE)
    spec, pipeline = s.configuration.spec, s.pipeline
    if spec.run.pipeline_version:
        message = f"spec.run.pipeline names version {spec.run.pipeline_version}: other versions start nothing"
        return Looked(entry.model_copy(update={"subject": "pinned", "baseline": spec.run.pipeline_version, "message": message}))
    if pipeline is None or pipeline.status.synchronization_state is not SyncState.SUCCEEDED or not pipeline.status.version:
        return Looked(entry)
    version, uid, revision = pipeline.status.version, pipeline.metadata.uid, pipeline.metadata.resource_version
    seen, _, seen_at = entry.baseline.rpartition(".")
    if entry.subject == uid and (seen == version or _older(revision, seen_at)):
        return Looked(entry)
    new = entry.subject == uid or (not entry.subject and spec.start_from == "Latest")
    update = {"subject": uid, "baseline": f"{version}.{revision}"}
    if entry.subject == "pinned":
        update["message"] = ""
    # with the resourceVersion, a version that comes back is another occurrence: a ConfigMap may change without a new generation
    return Looked(_arrived(entry.model_copy(update=update), [f"{version}.{revision}"] if new else []))


def _older(revision: str, than: str) -> bool:
    """Whether this process sees an older Pipeline than another one did; resourceVersions compare as integers (KEP-5504)."""
    return revision.isdecimal() and than.isdecimal() and int(revision) < int(than)


def _on_run_spec(s: ConfigurationSituation, before: TriggerStatus | None) -> Looked:
    spec, now = s.configuration.spec, spec_hash(s.configuration.spec.run)
    if before is None:
        entry = TriggerStatus(name=ON_RUN_SPEC, subject=_RECIPE, baseline=now)
        # the Run for the Pipeline's present version is the one for the present spec too
        looks_back = spec.start_from == "Latest" and "pipeline" not in spec.triggers.on_change
    else:
        entry = before.model_copy(update={"subject": _RECIPE, "baseline": now})
        looks_back = before.subject == _RECIPE and before.baseline != now
    return Looked(_arrived(entry, [f"{now}.{s.configuration.metadata.generation}"] if looks_back else []))


# Other RunConfigurations


def _configuration(s: ConfigurationSituation, name: str, before: TriggerStatus | None) -> Looked:
    entry = before or TriggerStatus(name=CONFIGURATION + name)
    other = s.configurations.get(name)
    if other is None:
        return Looked(entry, Problem("RunConfigurationNotFound", f"waits for RunConfiguration {name}, which does not exist; create it"))
    journal, uid = other.status.recent_runs, other.metadata.uid
    last = journal[-1].number if journal else 0
    if not allows(other, s.namespace):
        return Looked(_follow(entry, uid, last), Problem("ReferenceForbidden", forbidden(name, s.namespace), stalled=True))
    if name in s.loops:
        message = f"runs would start each other for ever: {' starts '.join(s.loops[name])}; take one out of spec.triggers.runConfigurations"
        return Looked(_follow(entry, uid, last), Problem("TriggerLoop", message, stalled=True))
    if before is None:
        return Looked(_arrived(_follow(entry, uid, last), _latest(s, other)))
    if entry.subject != uid:
        seen = max((end.number for end in journal if _before_its_time(end, other)), default=0)
    else:
        seen = int(entry.baseline) if entry.baseline.isdecimal() else last
    fresh = [end for end in journal if end.number > seen]
    entry = _follow(entry, uid, last)
    if fresh and (unseen := fresh[0].number - seen - 1) > 0:
        entry = _missed(
            entry, unseen, f"{unseen} ends of runs of RunConfiguration {name} passed unseen: it remembers the last {len(journal)}"
        )
    return Looked(_arrived(entry, [_identity(end) for end in fresh if end.state == RunState.SUCCEEDED]))


def _follow(entry: TriggerStatus, uid: str, number: int) -> TriggerStatus:
    return entry.model_copy(update={"subject": uid, "baseline": str(number)})


def _latest(s: ConfigurationSituation, other: RunConfiguration) -> list[str]:
    latest = other.status.latest_runs.succeeded
    return [_identity(latest)] if s.configuration.spec.start_from == "Latest" and latest is not None and latest.uid else []


def _identity(end: EndedRun) -> str:
    return f"{end.name}/{end.uid}/{end.attempt}"


def _before_its_time(end: EndedRun, configuration: RunConfiguration) -> bool:
    """Whether the entry came with the object, which was restored from a backup."""
    created = configuration.metadata.creation_timestamp
    return created is not None and end.end_time is not None and end.end_time < created


# By hand


def _by_hand(s: ConfigurationSituation, before: TriggerStatus | None) -> Looked | None:
    """A start that came with the object, as a copy or a backup brings it, is none; unless it says that it means this very object."""
    asked = s.configuration.metadata.annotations.get(s.names.start, "")
    if not asked:
        return Looked(before) if before is not None else None
    entry = before or TriggerStatus(name=MANUAL)
    if (baseline := manual.baseline(asked)) != asked:
        message = f"annotation {s.names.start} is longer than {MAX_OCCURRENCE} characters, it starts nothing"
        return Looked(entry.model_copy(update={"baseline": baseline, "message": message}))
    if asked == entry.baseline:
        return Looked(entry)
    uid = manual.parse(asked).uid
    never_looked = before is None and not s.configuration.status.observed_generation
    new = uid == s.configuration.metadata.uid if uid or never_looked else True
    pending = [*entry.pending, *([asked] if new and asked not in entry.pending else [])]
    return Looked(entry.model_copy(update={"baseline": asked, "pending": pending}))
