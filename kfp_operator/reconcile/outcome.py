"""Builds the data of a Run's events from what the backend reported: which changes are news, and what they say. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kfp_operator.api.names import Names
from kfp_operator.api.run import Run
from kfp_operator.api.states import RunState
from kfp_operator.providers.protocol import RunUpdate, StateChange
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


def attempt_of(run: Run) -> int:
    """The attempt that is on: the one in status, or the first."""
    return max(run.status.attempt, 1)


def final_state(run: Run, update: RunUpdate) -> RunState:
    """The state as users know it: a run stopped by its deadline failed."""
    cancelled = run.status.cancellation
    if update.state is RunState.STOPPED and cancelled is not None and cancelled.reason == "DeadlineExceeded":
        return RunState.FAILED
    return update.state


def translated(run: Run, update: RunUpdate) -> list[StateChange]:
    """The backend's history in users' words."""
    return [*update.history[:-1], StateChange(final_state(run, update), update.history[-1].time)]


def unpublished(run: Run, update: RunUpdate, published: set[Mark]) -> list[StateChange]:
    """The changes after the last one that status shows or this process published."""
    seen = {(h.attempt, h.state, millis(h.time)) for h in run.status.history} | published
    history = translated(run, update)
    last = max((i for i, change in enumerate(history) if mark(update.attempt, change) in seen), default=-1)
    return history[last + 1 :]


def refused(run: Run, refusal: Refusal, now: datetime, published: set[Mark]) -> RunUpdate:
    """An end without a backend, in the form of a backend's report. Its time is that of the first look, kept through retries."""
    attempt = attempt_of(run)
    ended = [m for m in published if m[0] == attempt and m[1] is refusal.state]
    ended += [(h.attempt, h.state, h.time) for h in run.status.history if h.attempt == attempt and h.state is refusal.state]
    time = max((m[2] for m in ended), default=millis(now))
    return RunUpdate(
        submission_id="",
        provider_id=run.status.provider_id,
        history=(StateChange(refusal.state, time),),
        attempt=attempt,
        message=refusal.message,
        end_time=time,
    )


def status_event(run: Run, names: Names, update: RunUpdate, change: StateChange, transition: int, collected: Collected | None) -> RunStatus:
    """Data of a run-status event."""
    final = change.state.final
    return RunStatus(
        provider=provider_of(run, names),
        pipeline_name=f"{run.metadata.namespace}/{run.spec.pipeline_name}",
        run_name=run.metadata.full_name,
        run_uid=run.metadata.uid,
        run_configuration_name=configuration_of(run, names),
        run_id=update.provider_id,
        attempt=update.attempt,
        transition=transition,
        state=change.state.value,
        previous_state=previous_state(run, update, change),
        time=millis(change.time),
        message=message_of(run, update) if final or change == update.history[-1] else "",
        artifacts=list(collected.artifacts) if final and collected is not None else [],
        url=update.url,
    )


def previous_state(run: Run, update: RunUpdate, change: StateChange) -> str:
    """The state before `change` in the backend's history, else the last one projected."""
    before = ""
    for entry in translated(run, update):
        if mark(update.attempt, entry) == mark(update.attempt, change):
            return before
        before = entry.state.value
    return before


def completion(run: Run, names: Names, update: RunUpdate, collected: Collected | None) -> RunCompletion:
    """Data of the run-completion event."""
    state = final_state(run, update)
    found = collected or Collected()
    start = millis(update.start_time) if update.start_time else None
    end = millis(update.end_time or update.history[-1].time)
    labels = run.metadata.labels
    return RunCompletion(
        provider=provider_of(run, names),
        status="succeeded" if state is RunState.SUCCEEDED else "failed",
        state=state.value,
        pipeline_name=f"{run.metadata.namespace}/{run.spec.pipeline_name}",
        pipeline_version=labels.get(names.pipeline_version, run.status.pipeline_version),
        experiment_name=f"{run.metadata.namespace}/{run.spec.experiment_name}" if run.spec.experiment_name else "",
        run_name=run.metadata.full_name,
        run_uid=run.metadata.uid,
        run_configuration_name=configuration_of(run, names),
        run_id=update.provider_id,
        attempt=update.attempt,
        serving_model_artifacts=list(found.serving),
        artifacts=list(found.artifacts),
        artifacts_complete=found.complete,
        training=Span(
            start_time=millis(update.training_start) if update.training_start else start,
            end_time=millis(update.training_end) if update.training_end else end,
        ),
        run_start_time=start,
        run_end_time=end,
        message="; ".join(filter(None, [message_of(run, update), *found.problems])),
        failed_task=update.failed_task,
        url=update.url,
        trigger=Cause(),
    )


def message_of(run: Run, update: RunUpdate) -> str:
    """Why it failed, in words that name the cause on our side where there is one."""
    cancelled = run.status.cancellation
    if update.state is RunState.STOPPED and cancelled is not None:
        if cancelled.reason == "DeadlineExceeded":
            return f"ran longer than spec.activeDeadlineSeconds ({run.spec.active_deadline_seconds} s)"
        return "stopped by spec.cancel" if cancelled.reason == "Cancelled" else "stopped because the Run was deleted"
    return update.message


def provider_of(run: Run, names: Names) -> str:
    """The Provider the Run is bound to, as namespace/name."""
    return run.status.provider or run.metadata.annotations.get(names.provider, "") or run.spec.provider


def configuration_of(run: Run, names: Names) -> str:
    """The RunConfiguration that made the Run, as namespace/name, or empty."""
    owner = next((o.name for o in run.metadata.owner_references if o.kind == "RunConfiguration" and o.controller), "")
    return f"{run.metadata.namespace}/{owner}" if owner else ""
