"""Decides whether a run that failed is tried again, when, and how long a Run may take in all. Pure.

`spec.retries` counts further submissions by the operator, as `backoffLimit` of a Job does. Tried again is what failed at the backend; not
what was stopped, refused, lost by the backend, or out of time. Between the end of an attempt and the next submission passes a pause that
doubles from one to the next. It begins with the time of that end, which the run-status `retrying` carries and `status.history` shows,
so that it is neither lost nor doubled over a crash.

`activeDeadlineSeconds` is per Run, as for a Job: it runs from the begin of the first attempt, through all retries and pauses. A run that
was re-opened at the backend after its Run had settled begins anew.
"""

from datetime import datetime, timedelta

from kfp_operator.api.run import Run
from kfp_operator.api.states import RunState
from kfp_operator.providers.protocol import RunUpdate
from kfp_operator.reconcile.outcome import begun, cancellation_of, end_told
from kfp_operator.reconcile.situation import Knowledge

FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(minutes=5)


def pause(number: int) -> timedelta:
    """The time between the end of an attempt and submission `number` (from 2)."""
    return min(FIRST_PAUSE * 2.0 ** min(number - 2, 20), LONGEST_PAUSE)


def why_again(run: Run, known: Knowledge, update: RunUpdate, now: datetime) -> str:
    """Why the attempt that `update` reports is not the end, for people; empty: it is, or it has not ended."""
    number = known.current.number
    if update.state is not RunState.FAILED or number > run.spec.retries:
        return ""
    if run.spec.cancel or run.metadata.deletion_timestamp is not None or cancellation_of(run, update.attempt) is not None:
        return ""
    if end_told(run, update.attempt, known.published) is not None:
        return ""
    over = deadline(run, update)
    if over is not None and over <= now:
        return ""
    wait = int(pause(number + 1).total_seconds())
    failed = f"failed{f' in {update.failed_task}' if update.failed_task else ''}{f': {update.message}' if update.message else ''}"
    return f"attempt {update.attempt} {failed}; it is tried again in {wait} s (retry {number} of {run.spec.retries})"


def due(run: Run, known: Knowledge) -> datetime | None:
    """When the current submission may be made; None: at once."""
    current = known.current
    if current.number == 1:
        return None
    failed = current.first_attempt - 1
    ends = [h.time for h in run.status.history if (h.attempt, h.state) == (failed, RunState.RETRYING)]
    ends += [m[2] for m in known.published if m[:2] == (failed, RunState.RETRYING)]
    return max(ends) + pause(current.number) if ends else None


def deadline(run: Run, update: RunUpdate | None) -> datetime | None:
    """When `activeDeadlineSeconds` is over; None: never, or the run has not begun."""
    seconds = run.spec.active_deadline_seconds
    if seconds is None:
        return None
    begins = [run.status.start_time if run.status.completion_state is None else None, begun(update) if update is not None else None]
    started = min((time for time in begins if time is not None), default=None)
    return started + timedelta(seconds=seconds) if started is not None else None


def report(run: Run, known: Knowledge, update: RunUpdate, now: datetime) -> None:
    """Take the backend's report in, its attempt as the Run counts.

    One of a re-opened run waits while the end of the attempt before it is being told, which the backend tells no more. Of attempts that
    began and ended unseen, which some backends still tell of, the first that was not told is taken.
    """
    held = known.update
    for before in update.earlier:
        told = before.attempt in known.completed or before.attempt < run.status.attempt
        told = told or (run.status.completion_state is not None and before.attempt <= run.status.attempt)
        if not told and before.state.completes and not why_again(run, known, before, now):
            update = before
            break
    if held is not None and update.attempt != held.attempt:
        told = held.attempt in known.completed or (run.status.completion_state is not None and held.attempt <= run.status.attempt)
        if held.state.completes and not told and not why_again(run, known, held, now):
            return
        known.collected = known.cancel_sent = None
    known.update = update
