"""What a run's document says, in the words of the protocol.

Pitfalls of the server, all seen on a real one: a time that is not there is 1970, in tasks the year 1; times have whole seconds; a run
that was terminated ends as FAILED, and its history says CANCELING only if there was time for it; what a second Workflow reports may
change one end into another; a run that somebody retries goes on with the same id, and its history with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kfp_operator.api.states import RunState
from kfp_operator.providers.kubeflow.failures import Diagnosis, tasks_of
from kfp_operator.providers.kubeflow.times import EPOCH, moment
from kfp_operator.providers.protocol import RunUpdate, StateChange

STATES: Mapping[str, RunState] = {
    "PENDING": RunState.QUEUED,
    "RUNNING": RunState.RUNNING,
    "PAUSED": RunState.WARNING,
    "CANCELING": RunState.STOPPING,
    "SUCCEEDED": RunState.SUCCEEDED,
    "SKIPPED": RunState.SKIPPED,
    "FAILED": RunState.FAILED,
    "CANCELED": RunState.STOPPED,
}
"""By the server's word. It has another for what it does not know (yet), which is left out."""
REPORTED = frozenset(STATES.values())


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known of a run's end beyond its document."""

    stop_accepted: bool = False
    """The server took our request to stop it."""
    stop_refused: bool = False
    """It had ended when we asked."""
    diagnosis: Diagnosis = field(default_factory=Diagnosis)


def is_final(run: Mapping[str, Any]) -> bool:
    """Whether the run has ended, as far as it is known."""
    state = STATES.get(str(run.get("state") or ""))
    return state is not None and state.final


def attempts(run: Mapping[str, Any]) -> list[list[StateChange]]:
    """The run's history by attempts: one, and one more for each time that it went on after its end. None is empty."""
    created = moment(run.get("created_at")) or EPOCH
    changes = [
        StateChange(STATES[word], moment(entry.get("update_time")) or created)
        for entry in run.get("state_history") or ()
        if isinstance(entry, Mapping) and (word := str(entry.get("state") or "")) in STATES
    ]
    present = STATES.get(str(run.get("state") or ""))
    if present is not None and present.final and (not changes or changes[-1].state is not present):
        changes.append(StateChange(present, moment(run.get("finished_at")) or (changes[-1].time if changes else created)))
    if not changes:
        # CANCELING that the history does not have yet is left out: there is no time to tell it with
        changes.append(StateChange(present if present is not None and not present.final else RunState.QUEUED, created))
    found: list[list[StateChange]] = [[]]
    for change in changes:
        last = found[-1][-1] if found[-1] else None
        if last is not None and last.state is change.state:
            continue
        if last is not None and last.state.final:
            if change.state.final:  # two Workflows reported into one run: what it says last is what it says
                found[-1][-1] = change
                continue
            found.append([])
        found[-1].append(change)
    return found


def updates(run: Mapping[str, Any], *, url: str = "", ending: Ending | None = None) -> list[RunUpdate]:
    """The run as reports, one for each attempt; the last is the present one."""
    ending = ending or Ending()
    histories = attempts(run)
    run_id = str(run.get("run_id") or "")
    made = [
        _update(run_id, number, history, url, ending if number == len(histories) else Ending())
        for number, history in enumerate(histories, start=1)
    ]
    last, error = made[-1], _message(run.get("error"))
    finished = moment(run.get("finished_at"))
    made[-1] = replace(
        last,
        message=last.message or error,
        end_time=finished if last.state.final and finished is not None else last.end_time,
        tasks=tasks_of(run),
    )
    return made


def _update(run_id: str, number: int, history: list[StateChange], url: str, ending: Ending) -> RunUpdate:
    last = history[-1]
    failed = last.state is RunState.FAILED
    stopped = failed and (ending.stop_accepted or any(change.state is RunState.STOPPING for change in history))
    if stopped:
        history = [*history[:-1], StateChange(RunState.STOPPED, last.time)]
    begun = next((change.time for change in history if change.state is RunState.RUNNING), None)
    return RunUpdate(
        submission_id=run_id,
        provider_id=run_id,
        history=tuple(history),
        attempt=number,
        message=ending.diagnosis.message if failed and not stopped else "",
        failed_task=ending.diagnosis.task if failed and not stopped else "",
        url=url,
        start_time=begun or (history[0].time if last.state.final else None),
        end_time=last.time if last.state.final else None,
        perhaps_stopped=failed and not stopped and not ending.stop_refused,
    )


def _message(error: object) -> str:
    return str(error.get("message") or "") if isinstance(error, Mapping) else ""
