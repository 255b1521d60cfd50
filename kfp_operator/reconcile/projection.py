"""Decides what an event means for a Run's status. Pure: the Run and the event in, the new status or the reason to ignore it out.

Status is a projection of events: the order of delivery, duplicates and leftovers of earlier processes must not matter. A
completion beats every run-status of its attempt; a later observation overwrites a final state only with a higher attempt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kfp_operator.api import conditions, hashing
from kfp_operator.api.names import Names
from kfp_operator.api.run import HistoryEntry, Run, RunArtifact, RunStatus
from kfp_operator.api.states import RunState, SyncState
from kfp_operator.reconcile.attempts import FIRST, shown, told
from kfp_operator.schemas import Artifact, RunCompletion
from kfp_operator.schemas import RunStatus as RunStatusEvent

HISTORY = 20
"""States kept in status.history."""

Disposition = Literal["applied", "duplicate", "stale", "foreign"]


@dataclass(frozen=True, slots=True)
class Projection:
    """The status after an event, and what became of the event."""

    status: RunStatus
    disposition: Disposition


def project(run: Run, event: RunStatusEvent | RunCompletion, *, names: Names, now: datetime) -> Projection:
    """The Run's status after the event."""
    if event.run_uid != run.metadata.uid:
        return Projection(run.status, "foreign")
    if isinstance(event, RunCompletion):
        return _completion(run, event, names, now)
    return _status(run, event, names, now)


def _status(run: Run, event: RunStatusEvent, names: Names, now: datetime) -> Projection:
    status = run.status
    if event.transition <= status.transition:
        return Projection(status, "duplicate")
    if event.attempt < status.attempt or (status.completion_state is not None and event.attempt <= status.attempt):
        return Projection(status, "stale")
    state = RunState(event.state)
    if state.completes:  # only the completion ends a Run; the count moves so that nothing is published twice
        return Projection(status.model_copy(update={"transition": event.transition}), "applied")
    reopened = status.completion_state is not None
    update = {
        "synchronization_state": SyncState.SUCCEEDED,
        "provider": event.provider,
        "provider_id": event.run_id or status.provider_id,
        "state": state,
        **_attempt(status, event),
        "transition": event.transition,
        "message": event.message,
        "url": event.url or status.url,
        "history": _history(status, HistoryEntry(state=state, time=event.time, attempt=event.attempt, message=event.message)),
        "observed_generation": run.metadata.generation,
        **_versions(run, status.pipeline_version or run.metadata.labels.get(names.pipeline_version, "")),
    }
    start = event.run_start_time or (event.time if state is RunState.RUNNING else None)
    if reopened:
        update |= {"completion_state": None, "end_time": None, "failed_task": "", "artifacts": [], "start_time": None}
    if start is not None and (status.start_time is None or reopened):
        update["start_time"] = start.replace(microsecond=0)
    if run.metadata.deletion_timestamp is not None:
        update["synchronization_state"] = SyncState.DELETING
        wishes = conditions.run_deleting(status.conditions, "its run is being stopped")
    elif state.final:  # skipped and upstream_failed have no completion
        wishes = conditions.run_finished(state, event.message)
        update["completion_state"] = "Succeeded" if state is RunState.SKIPPED else "Failed"
    else:
        wishes = conditions.run_accepted(state)
    update["conditions"] = conditions.apply(status.conditions, wishes, generation=run.metadata.generation, now=now)
    return Projection(status.model_copy(update=update), "applied")


def _completion(run: Run, event: RunCompletion, names: Names, now: datetime) -> Projection:
    status = run.status
    if event.attempt < status.attempt:
        return Projection(status, "stale")
    if status.completion_state is not None and event.attempt == status.attempt:
        return Projection(status, "duplicate")
    state = RunState(event.state)
    reached = bool(event.run_id) or event.submission > 1
    reopened = status.completion_state is not None
    end = event.run_end_time or now
    start = event.run_start_time.replace(microsecond=0) if event.run_start_time else status.start_time
    if event.attempt > 1 and status.start_time is not None and not reopened:
        start = status.start_time  # the Run's, not the last attempt's
    failed_before_backend = not reached and state is not RunState.SUCCEEDED
    wishes = conditions.run_finished(state, event.message, synchronized=not failed_before_backend)
    update = {
        "synchronization_state": SyncState.FAILED if failed_before_backend else SyncState.SUCCEEDED,
        "provider": event.provider or status.provider,
        "provider_id": event.run_id or status.provider_id,
        "state": state,
        **_attempt(status, event),
        "completion_state": "Succeeded" if event.status == "succeeded" else "Failed",
        "start_time": start,
        "end_time": end.replace(microsecond=0),
        "artifacts": [_artifact(a) for a in event.artifacts],
        "message": event.message,
        "failed_task": event.failed_task,
        "url": event.url or status.url,
        **_versions(run, event.pipeline_version or status.pipeline_version),
        "history": _history(status, HistoryEntry(state=state, time=end, attempt=event.attempt, message=event.message)),
        "observed_generation": run.metadata.generation,
        "conditions": conditions.apply(status.conditions, wishes, generation=run.metadata.generation, now=now),
    }
    return Projection(status.model_copy(update=update), "applied")


def _attempt(status: RunStatus, event: RunStatusEvent | RunCompletion) -> dict[str, object]:
    """Which attempt and submission is on (the latter is not said of a Run that was never tried again); an older one's mark goes."""
    current = max(shown(status), told(event))
    update: dict[str, object] = {"attempt": event.attempt}
    if current != FIRST:
        update |= {"submission": current.number, "first_attempt": current.first_attempt}
    if status.cancellation is not None and status.cancellation.attempt < event.attempt:
        update["cancellation"] = None
    return update


def _versions(run: Run, pipeline_version: str) -> dict[str, str]:
    return {"pipeline_version": pipeline_version, "version": hashing.run_version(run.spec, pipeline_version)}


def _artifact(artifact: Artifact) -> RunArtifact:
    return RunArtifact(name=artifact.name, location=artifact.location, type=artifact.type, metadata=artifact.metadata)


def _history(status: RunStatus, entry: HistoryEntry) -> Sequence[HistoryEntry]:
    kept = [h for h in status.history if (h.attempt, h.state, h.time) != (entry.attempt, entry.state, entry.time)]
    return [*kept, entry][-HISTORY:]
