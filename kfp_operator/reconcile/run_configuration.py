"""Decides what to do next for a RunConfiguration. Pure: the object, what it refers to, its Runs and the clock in; one step out.

What happens becomes one Run each, in two steps that may be repeated. First `WriteStatus`: what the triggers saw stands in
`status.triggers[].pending`, in the write that moves their baselines. Then `StartRuns`, for what stands there already, under a name made of
what happened; a Run of that name is the Run, whoever made it. Only then is it taken off. So neither a kill between two lines nor a
lost answer nor a second operator starts anything twice or loses it, and a quota that refuses a Run delays it.

Starts by policy (`concurrencyPolicy`) are decided over the Runs that exist when a start is due, not when it happened.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from kfp_operator.api.run_configuration import RunConfigurationStatus, TriggerStatus
from kfp_operator.reconcile.history import surplus
from kfp_operator.reconcile.run_configuration_runs import manifest, run_name, to_read, values
from kfp_operator.reconcile.run_configuration_situation import ConfigurationSituation, Occurrence, Problem
from kfp_operator.reconcile.run_configuration_status import RUN_REFUSED, held, status_of, waits, waits_for
from kfp_operator.reconcile.run_configuration_triggers import MANUAL, SCHEDULE, STARTED_NOTHING, Looked, look, tick_of
from kfp_operator.reconcile.starting import OwnedRun, Verdict, admit

BATCH = 20
"""Runs that are started between two writes of status."""


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Patch the status to this."""

    status: RunConfigurationStatus


@dataclass(frozen=True, slots=True)
class Start:
    """A Run to be created, or found."""

    occurrence: Occurrence
    name: str
    manifest: Mapping[str, Any]
    """JSON for the API server."""
    left_out: tuple[str, ...] = ()
    """Why optional parameters are left out."""


@dataclass(frozen=True, slots=True)
class StartRuns:
    """Create Runs, one after the other, or find that they are there; the first that is refused ends it."""

    starts: Sequence[Start]


@dataclass(frozen=True, slots=True)
class StopRuns:
    """Have Runs stopped, because another is to take their place."""

    runs: Sequence[OwnedRun]


@dataclass(frozen=True, slots=True)
class DeleteRuns:
    """Delete Runs beyond the history limits."""

    runs: Sequence[OwnedRun]


@dataclass(frozen=True, slots=True)
class Read:
    """A run of another configuration, of which the Run for the occurrence takes artifacts."""

    occurrence: Occurrence
    run: str
    """namespace/name"""
    uid: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ReadRuns:
    """Find out what runs of other configurations produced."""

    reads: Sequence[Read]


Action = WriteStatus | StartRuns | StopRuns | DeleteRuns | ReadRuns


@dataclass(frozen=True, slots=True)
class Decision:
    """The next step, if any, and when to look again (seconds)."""

    action: Action | None = None
    again: float | None = None


@dataclass(slots=True)
class _Plan:
    """What is to be done about what is pending."""

    entries: dict[str, TriggerStatus]
    starts: list[Start] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    stop: StopRuns | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def action(self) -> Action | None:
        """The next step, if there is one."""
        if self.reads:
            return ReadRuns(tuple(self.reads))
        return StartRuns(tuple(self.starts)) if self.starts else self.stop

    def add(self, step: Start | Read | StopRuns | None) -> None:
        """Something is to be done."""
        match step:
            case Start():
                self.starts.append(step)
            case Read():
                self.reads.append(step)
            case StopRuns():
                self.stop = step

    def drop(self, occurrence: Occurrence, message: str) -> None:
        """It starts nothing."""
        entry = self.entries[occurrence.trigger]
        left = [what for what in entry.pending if what != occurrence.what]
        update = {"pending": left, "suppressed": entry.suppressed + 1, "message": message}
        self.entries[occurrence.trigger] = entry.model_copy(update=update)

    def wait(self, occurrence: Occurrence, message: str) -> None:
        """It waits."""
        entry = self.entries[occurrence.trigger]
        self.entries[occurrence.trigger] = entry.model_copy(update={"message": message})


def decide(s: ConfigurationSituation) -> Decision:
    """The next step for the RunConfiguration."""
    if s.configuration.metadata.deletion_timestamp is not None:
        return Decision()  # its Runs go with it
    settled = _Settled(s)
    looked = look(s, [settled.without(entry) for entry in s.configuration.status.triggers])
    # once more: who sees less than another process did sees things happen again that have their Runs
    looked = [replace(each, entry=settled.without(each.entry)) for each in looked]
    plan = _plan(s, looked)
    if plan.action is not None and len(s.known.started) < BATCH:
        return Decision(plan.action)
    following = min((each.next for each in looked if each.next is not None), default=None)
    problems = [*plan.problems, *(each.problem for each in looked if each.problem is not None)]
    status = status_of(s, list(plan.entries.values()), problems, following=following)
    tick = settled.last_tick
    if tick is not None and (status.last_schedule_time is None or tick > status.last_schedule_time):
        status = status.model_copy(update={"last_schedule_time": tick})
    if status != s.configuration.status:
        return Decision(WriteStatus(status), again=0)
    if plan.action is not None:
        return Decision(plan.action)
    spec = s.configuration.spec
    pending = {run_name(s, occurrence) for occurrence in _pending(plan.entries.values())}
    successful, failed = spec.successful_runs_history_limit, spec.failed_runs_history_limit
    if old := surplus(s.runs, successful=successful, failed=failed, keep=pending):
        return Decision(DeleteRuns(old))
    return Decision(again=_again(s, following))


class _Settled:
    """Takes off what has its Run."""

    def __init__(self, s: ConfigurationSituation) -> None:
        self._s = s
        self._there = dict(s.known.started) | {run.name: run.created for run in s.runs}
        self._names: dict[Occurrence, str] = {}
        self._ended = {run.name for run in s.configuration.status.recent_runs}
        self.last_tick: datetime | None = None
        """The latest tick among it."""

    def without(self, entry: TriggerStatus) -> TriggerStatus:
        """The entry without it."""
        left = []
        for what in entry.pending:
            occurrence = Occurrence(entry.name, what)
            name = self._names.get(occurrence) or self._names.setdefault(occurrence, run_name(self._s, occurrence))
            if name not in self._there and name not in self._ended:
                left.append(what)
                continue
            entry = entry.model_copy(update={"last_run": name, "last_time": self._there.get(name, entry.last_time), "message": ""})
            if entry.name.startswith(SCHEDULE):
                tick = tick_of(what, self._s.now)
                self.last_tick = tick if self.last_tick is None else max(tick, self.last_tick)
        return entry.model_copy(update={"pending": left}) if len(left) != len(entry.pending) else entry


def _plan(s: ConfigurationSituation, looked: Sequence[Looked]) -> _Plan:
    """What becomes of everything that is pending. Only what stands in status already may be started."""
    plan = _Plan({each.entry.name: each.entry for each in looked})
    stored = set(_pending(s.configuration.status.triggers))
    if (problem := waits(s)) is not None:
        plan.problems.append(problem)
    if (problem := held(s)) is not None:
        plan.problems.insert(0, problem)
        return plan
    queued: list[Occurrence] = []
    refused = s.known.refused if stored else None
    if refused is not None:
        plan.problems.insert(0, Problem(RUN_REFUSED, refused.message))
    put_off, policy = refused is not None and s.now < refused.not_before, s.configuration.spec.concurrency_policy
    most = max(BATCH - len(s.known.started), 1) if policy == "Allow" else 1
    for occurrence in _pending(plan.entries.values()):
        if len(plan.starts) + len(plan.reads) >= most or plan.stop is not None or (put_off and policy == "Allow"):
            break  # the others are looked at when that is done
        admission = admit(policy, s.runs, run_name(s, occurrence))
        if admission.verdict is Verdict.SKIP:
            plan.drop(occurrence, f"{STARTED_NOTHING}{admission.because}, and spec.concurrencyPolicy is Forbid")
        elif admission.verdict is Verdict.QUEUE:
            queued.append(occurrence)
            plan.wait(occurrence, f"waits: {admission.because}")
        elif not put_off:
            step = _start(s, plan, occurrence, admission.others)
            plan.add(step if occurrence in stored else None)
    if queued:
        chosen = next((o for o in reversed(queued) if o.trigger == MANUAL), queued[-1])
        for occurrence in queued:
            if occurrence != chosen:
                plan.drop(occurrence, f"{STARTED_NOTHING}a later one took its place in the queue (spec.concurrencyPolicy: QueueLatest)")
    return plan


def _start(s: ConfigurationSituation, plan: _Plan, occurrence: Occurrence, others: Sequence[OwnedRun]) -> Start | Read | StopRuns | None:
    """The occurrence's Run, or what comes before it; None: it waits for its parameters."""
    if (run := to_read(s, occurrence)) is not None:
        return Read(occurrence, *run)
    resolution = values(s, occurrence)
    if blocking := resolution.blocking:
        plan.wait(occurrence, waits_for(s, blocking[0]).message)
        return None
    if others:
        return StopRuns(others)
    left_out = tuple(missing.message for missing in resolution.missing)
    return Start(occurrence, run_name(s, occurrence), manifest(s, occurrence, resolution), left_out)


def _pending(entries: Iterable[TriggerStatus]) -> list[Occurrence]:
    return [Occurrence(entry.name, what) for entry in entries for what in entry.pending]


def _again(s: ConfigurationSituation, following: datetime | None) -> float | None:
    refused = s.known.refused
    times = [time for time in (following, refused.not_before if refused is not None else None) if time is not None]
    return max((min(times) - s.now).total_seconds(), 0.0) if times else None
