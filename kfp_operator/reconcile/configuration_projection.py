"""Decides what the end of a run means for the status of the RunConfiguration that made it. Pure: status and completions in, status out.

`recentRuns` is a journal: entries are numbered in the order in which they were told and never inserted, so that whoever follows it
needs to remember only the last number seen. `latestRuns` is ordered by the time at which runs ended, whatever the order in which
that was told. A completion that is told again changes nothing: it is in the journal, or older than all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kfp_operator.api.run import RunArtifact
from kfp_operator.api.run_configuration import MAX_RECENT, EndedRun, LatestRun, LatestRuns, RunConfiguration, RunConfigurationStatus
from kfp_operator.api.states import RunState
from kfp_operator.schemas import RunCompletion

_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Ended:
    """A completion to be recorded."""

    event: RunCompletion
    owner: str = ""
    """uid of the RunConfiguration that made the Run, where the Run is known; else "" and the name decides."""
    news: bool = False
    """The Run's own status did not show this end before: it cannot have been recorded, however old it is."""


def record(configuration: RunConfiguration, ended: Sequence[Ended]) -> RunConfigurationStatus:
    """The status after these ends, in the order in which they were told; the same object when there is nothing new."""
    status = configuration.status
    for end in ended:
        if _belongs(configuration, end):
            status = _record(status, end)
    return status


def _belongs(configuration: RunConfiguration, end: Ended) -> bool:
    """Whether this very configuration made the run, and not an earlier one of the same name."""
    if end.owner:
        return end.owner == configuration.metadata.uid
    created, time = configuration.metadata.creation_timestamp, end.event.run_end_time
    return created is None or time is None or time >= created


def _record(status: RunConfigurationStatus, end: Ended) -> RunConfigurationStatus:
    event, recent = end.event, status.recent_runs
    entry = _entry(event, number=(recent[-1].number if recent else 0) + 1)
    if any((known.uid, known.attempt) == (entry.uid, entry.attempt) for known in recent):
        return status
    if not end.news and len(recent) >= MAX_RECENT and _time(entry) < min(_time(known) for known in recent):
        return status  # the journal had it once, and has gone on since
    latest = LatestRun(
        **dict(entry),
        artifacts=[RunArtifact(name=a.name, location=a.location, type=a.type, metadata=a.metadata) for a in event.artifacts],
    )
    succeeded = event.state == RunState.SUCCEEDED
    before = status.latest_runs
    runs = (
        LatestRuns(succeeded=_later(before.succeeded, latest), failed=before.failed)
        if succeeded
        else LatestRuns(succeeded=before.succeeded, failed=_later(before.failed, latest))
    )
    update = {
        "latest_runs": runs,
        "recent_runs": [*recent, entry][-MAX_RECENT:],
        "active": [run for run in status.active if run.uid != entry.uid],
    }
    if succeeded and runs.succeeded is not None and runs.succeeded.end_time is not None:
        update["last_successful_time"] = runs.succeeded.end_time
    return status.model_copy(update=update)


def _entry(event: RunCompletion, *, number: int) -> EndedRun:
    end = event.run_end_time
    return EndedRun(
        number=number,
        name=event.run_name.partition("/")[2],
        uid=event.run_uid,
        attempt=event.attempt,
        state=event.state,
        provider_id=event.run_id,
        end_time=end.replace(microsecond=0) if end is not None else None,
    )


def _later(before: LatestRun | None, after: LatestRun) -> LatestRun:
    """The one that ended later; uid and attempt decide between equals, so that the order of telling never does."""
    return after if before is None or _order(after) > _order(before) else before


def _order(run: EndedRun) -> tuple[datetime, str, int]:
    return (_time(run), run.uid, run.attempt)


def _time(run: EndedRun) -> datetime:
    return run.end_time or _BEFORE_ALL
