"""Builds the data of a Run's events from what the backend reported: which changes are news, and what they say. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from kfp_operator.api.names import Names, name_in
from kfp_operator.api.run import Cancellation, Run
from kfp_operator.api.states import RunState
from kfp_operator.providers.protocol import Observed, RunUpdate, StateChange
from kfp_operator.reconcile.attempts import CurrentSubmission, attempt_of
from kfp_operator.schemas import Artifact, Cause, RunCompletion, RunStatus, ServingModelArtifact, Span

Mark = tuple[int, RunState, datetime]
"""Identity of a reported change: attempt, state, time in whole milliseconds (what the wire keeps)."""


@dataclass(frozen=True, slots=True)
class Collected:
    """Artifacts of an ended run, resolved by the Run's definitions."""

    artifacts: Sequence[Artifact] = ()
    serving: Sequence[ServingModelArtifact] = ()
    complete: bool = True
    problems: Sequence[str] = ()
    """Definitions that name something the run did not produce, or filters that failed."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a Run ends although the backend does not have it."""

    reason: str
    message: str
    state: RunState = RunState.FAILED


def millis(time: datetime) -> datetime:
    """Cut to what the wire keeps."""
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def mark(attempt: int, change: StateChange) -> Mark:
    """The change's identity."""
    return (attempt, change.state, millis(change.time))


def cancellation_of(run: Run, attempt: int) -> Cancellation | None:
    """The mark that this attempt is to be stopped. One of an earlier attempt means nothing to a run that was re-opened since."""
    mark = run.status.cancellation
    return mark if mark is not None and mark.attempt == attempt else None


def end_told(run: Run, attempt: int, published: Collection[Mark]) -> RunState | None:
    """The state that a run-status told as the end of the attempt, as far as is known here: what was told stands."""
    marks = (*((h.attempt, h.state) for h in run.status.history), *(m[:2] for m in published))
    return next((state for number, state in marks if number == attempt and state.completes), None)


def translated(run: Run, update: RunUpdate, published: Collection[Mark] = (), retry: str = "") -> RunUpdate:
    """The backend's report in users' words: a run stopped by its deadline failed. `retry`: why one that failed did not end with that."""
    last = update.history[-1]
    state, message = last.state, update.message
    cancelled = cancellation_of(run, update.attempt)
    if update.perhaps_stopped and cancelled is not None and (update.end_time or last.time) >= cancelled.time:
        state = RunState.STOPPED
    told = end_told(run, update.attempt, published) if state.completes else None
    if state is RunState.STOPPED and (told is RunState.FAILED or (cancelled is not None and cancelled.reason == "DeadlineExceeded")):
        state, message = RunState.FAILED, too_long(run)
    elif state is RunState.STOPPED and cancelled is not None:
        message = "stopped by spec.cancel" if cancelled.reason == "Cancelled" else "stopped because the Run was deleted"
    elif retry:
        state, message = RunState.RETRYING, retry
    return replace(update, history=(*update.history[:-1], StateChange(state, last.time)), message=message)


def too_long(run: Run) -> str:
    """Why a run failed that was stopped by its deadline."""
    return f"ran longer than spec.activeDeadlineSeconds ({run.spec.active_deadline_seconds} s)"


def unpublished(run: Run, report: RunUpdate, published: Collection[Mark]) -> list[StateChange]:
    """The changes after the last one that status shows or this process published; none after the end was told."""
    if end_told(run, report.attempt, published) is not None:
        return []
    seen = {(h.attempt, h.state, millis(h.time)) for h in run.status.history} | set(published)
    last = max((i for i, change in enumerate(report.history) if mark(report.attempt, change) in seen), default=-1)
    return list(report.history[last + 1 :])


def begun(update: RunUpdate) -> datetime | None:
    """When the attempt began at the backend. Of a run that was re-opened, some backends go on telling when it began first."""
    start = update.start_time
    return max(start, update.history[0].time) if start is not None and update.attempt > 1 else start


def refused(run: Run, current: CurrentSubmission, refusal: Refusal, now: datetime, published: Collection[Mark]) -> RunUpdate:
    """An end without a backend, in the form of a backend's report. Its time is that of the first look, kept through retries."""
    attempt = attempt_of(run, current)
    state = end_told(run, attempt, published) or refusal.state
    ended = [m for m in published if m[:2] == (attempt, state)]
    ended += [(h.attempt, h.state, h.time) for h in run.status.history if (h.attempt, h.state) == (attempt, state)]
    time = max((m[2] for m in ended), default=millis(now))
    reached = run.status.attempt >= current.first_attempt
    return RunUpdate(
        submission_id="",
        provider_id=run.status.provider_id if reached else "",
        history=(StateChange(state, time),),
        attempt=attempt,
        message=refusal.message,
        end_time=time,
    )


def status_event(
    run: Run,
    names: Names,
    report: RunUpdate,
    change: StateChange,
    *,
    transition: int,
    current: CurrentSubmission,
    collected: Collected | None = None,
) -> RunStatus:
    """Data of a run-status event. `current`: the submission that is on from then on."""
    final = change.state.final
    start = begun(report)
    return RunStatus(
        provider=provider_of(run, names),
        pipeline_name=f"{run.metadata.namespace}/{run.spec.pipeline_name}",
        run_name=run.metadata.full_name,
        run_uid=run.metadata.uid,
        run_configuration_name=configuration_of(run, names),
        run_id=report.provider_id,
        attempt=report.attempt,
        submission=current.number,
        first_attempt=current.first_attempt,
        transition=transition,
        state=change.state.value,
        previous_state=previous_state(run, report, change),
        time=millis(change.time),
        run_start_time=millis(start) if start is not None and start <= change.time else None,
        message=report.message if final or change == report.history[-1] else "",
        artifacts=list(collected.artifacts) if final and collected is not None else [],
        url=report.url,
    )


def previous_state(run: Run, report: RunUpdate, change: StateChange) -> str:
    """The state before `change` in the report's history, of a later attempt's first one the state in which the earlier attempt is shown."""
    before = str(run.status.state or "") if run.status.attempt < report.attempt else ""
    for entry in report.history:
        if mark(report.attempt, entry) == mark(report.attempt, change):
            return before
        before = entry.state.value
    return before


def completion(run: Run, names: Names, report: RunUpdate, current: CurrentSubmission, collected: Collected | None) -> RunCompletion:
    """Data of the run-completion event."""
    state = report.state
    found = collected or Collected()
    started = begun(report)
    start = millis(started) if started is not None else None
    end = millis(report.end_time or report.history[-1].time)
    return RunCompletion(
        provider=provider_of(run, names),
        status="succeeded" if state is RunState.SUCCEEDED else "failed",
        state=state.value,
        pipeline_name=f"{run.metadata.namespace}/{run.spec.pipeline_name}",
        pipeline_version=run.metadata.labels.get(names.pipeline_version, run.status.pipeline_version),
        experiment_name=f"{run.metadata.namespace}/{run.spec.experiment_name}" if run.spec.experiment_name else "",
        run_name=run.metadata.full_name,
        run_uid=run.metadata.uid,
        run_configuration_name=configuration_of(run, names),
        run_id=report.provider_id,
        attempt=report.attempt,
        submission=current.number,
        first_attempt=current.first_attempt,
        serving_model_artifacts=list(found.serving),
        artifacts=list(found.artifacts),
        artifacts_complete=found.complete,
        training=Span(
            start_time=millis(report.training_start) if report.training_start else start,
            end_time=millis(report.training_end) if report.training_end else end,
        ),
        run_start_time=start,
        run_end_time=end,
        message="; ".join(filter(None, [report.message, *found.problems])),
        failed_task=report.failed_task,
        url=report.url,
        trigger=cause_of(run, names),
    )


def completion_of(run: Run, names: Names, told: RunStatus) -> RunCompletion:
    """The completion that a final run-status promised, of an attempt that the backend tells nothing of any more: it was re-opened."""
    update = RunUpdate(
        submission_id="",
        provider_id=told.run_id,
        history=(StateChange(RunState(told.state), told.time),),
        attempt=told.attempt,
        message=told.message,
        url=told.url,
        end_time=told.time,
    )
    current = CurrentSubmission(told.submission, told.first_attempt)
    made = completion(run, names, update, current, Collected(tuple(told.artifacts)))
    span = Span(start_time=told.run_start_time, end_time=told.time)
    return made.model_copy(update={"run_start_time": told.run_start_time, "training": span})


def observed_completion(provider: str, update: RunUpdate, collected: Collected) -> RunCompletion:
    """Data of the run-completion event of a run that others started. Names are the backend's own; a Pipeline's is namespace/name."""
    observed = update.observed or Observed("")
    start = millis(update.start_time) if update.start_time is not None else None
    end = millis(update.end_time or update.history[-1].time)
    return RunCompletion(
        provider=provider,
        status="succeeded" if update.state is RunState.SUCCEEDED else "failed",
        state=update.state.value,
        pipeline_name=observed.pipeline,
        pipeline_version=observed.pipeline_version,
        experiment_name=observed.experiment,
        run_name="",
        run_uid="",
        run_id=update.provider_id,
        attempt=update.attempt,
        serving_model_artifacts=list(collected.serving),
        artifacts=list(collected.artifacts),
        artifacts_complete=collected.complete,
        training=Span(
            start_time=millis(update.training_start) if update.training_start else start,
            end_time=millis(update.training_end) if update.training_end else end,
        ),
        run_start_time=start,
        run_end_time=end,
        message="; ".join(filter(None, [update.message, *collected.problems])),
        failed_task=update.failed_task,
        url=update.url,
    )


def provider_of(run: Run, names: Names) -> str:
    """The Provider the Run is bound to, as namespace/name."""
    return run.status.provider or run.metadata.annotations.get(names.provider, "") or run.spec.provider


def configuration_of(run: Run, names: Names) -> str:
    """The RunConfiguration that made the Run, as namespace/name, or empty."""
    owner = next((o.name for o in run.metadata.owner_references if o.kind == "RunConfiguration" and o.controller), "")
    name = owner or name_in(names.run_configuration, run.metadata.labels, run.metadata.annotations)
    return f"{run.metadata.namespace}/{name}" if name else ""


def cause_of(run: Run, names: Names) -> Cause:
    """What started the Run, as its labels say; nothing when a person or a program created it."""
    labels, annotations = run.metadata.labels, run.metadata.annotations
    source = name_in(names.trigger_source, labels, annotations)
    namespace = name_in(names.trigger_source_namespace, labels, annotations)
    return Cause(type=labels.get(names.trigger_type, ""), source=f"{namespace}/{source}" if namespace and source else source)
