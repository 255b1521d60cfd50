"""What a person who waits for a Run is told: pure, from one look at it to the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kfp_operator.api import conditions
from kfp_operator.api.run import HistoryEntry, Run
from kfp_operator.api.states import RunState

WAITING = "waiting"
"""The word for a Run that the backend does not have yet."""


@dataclass(frozen=True, slots=True)
class Line:
    """Something happened. `time` as the backend or the API server says; None: just now."""

    state: str
    message: str = ""
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class View:
    """How far a Run is."""

    state: str
    message: str
    ended: bool
    succeeded: bool


def view(run: Run) -> View:
    """How far the Run is."""
    status = run.status
    completed = conditions.find(status.conditions, "Completed")
    succeeded = conditions.find(status.conditions, "Succeeded")
    ended = completed is not None and completed.status == "True"
    ready = conditions.find(status.conditions, "Ready")
    if status.state is None and not ended:
        message = status.message or (ready.message or ready.reason if ready is not None else "the operator has not looked at it yet")
        return View(WAITING, message, ended=False, succeeded=False)
    state = status.state.value if status.state is not None else (completed.reason if completed is not None else "")
    message = status.message
    if not message and ended and succeeded is not None and succeeded.status != "True":
        message = succeeded.message or (succeeded.reason if succeeded.reason.lower() != state.replace("_", "") else "")
    return View(state, message, ended=ended, succeeded=succeeded is not None and succeeded.status == "True")


def news(before: Run | None, now: Run) -> list[Line]:
    """What happened since the last look, oldest first: states that passed unseen are in the history."""
    told = {_key(entry) for entry in before.status.history} if before is not None else set()
    lines = [Line(entry.state.value, entry.message, entry.time) for entry in now.status.history if _key(entry) not in told]
    present, previous = view(now), view(before) if before is not None else None
    last = lines[-1] if lines else None
    if last is not None and last.state == present.state:
        if not last.message and present.message:
            lines[-1] = Line(last.state, present.message, last.time)
    elif previous is None or previous.state != present.state or (present.message and previous.message != present.message):
        lines.append(Line(present.state, present.message))
    return lines


def _key(entry: HistoryEntry) -> tuple[int, RunState, datetime]:
    return entry.attempt, entry.state, entry.time


def summary(run: Run) -> list[str]:
    """What came of a Run that has ended: one line per fact, the outcome first. Why is told by `news`, beside the state."""
    status, present = run.status, view(run)
    if not present.ended:
        return []
    taken = f" after {length((status.end_time - status.start_time).total_seconds())}" if status.start_time and status.end_time else ""
    attempt = f" at attempt {status.attempt}" if status.attempt > 1 else ""
    lines = [f"Run {run.metadata.full_name} {present.state}{attempt}{taken}"]
    if not present.succeeded and status.failed_task:
        lines.append(f"  failed task: {status.failed_task}")
    lines += [f"  artifact {artifact.name}: {artifact.location}" for artifact in status.artifacts]
    if status.url:
        lines.append(f"  {status.url}")
    if not present.succeeded and status.attempt:
        lines.append(f"  its log: kfp-operator runs logs {run.metadata.name} -n {run.metadata.namespace}")
    return lines


def length(seconds: float) -> str:
    """A length of time for people: 42 s, 3 min 5 s, 2 h 4 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def clean(text: str, limit: int = 0) -> str:
    """The text on one line and without control characters, which a terminal would obey; at most `limit` characters if given."""
    line = "".join(char if char.isprintable() else " " for char in text).strip()
    return line[: limit - 1] + "…" if 0 < limit < len(line) else line


def clean_all(lines: Sequence[str]) -> list[str]:
    """Lines made safe to print, their indentation kept."""
    return [line[: len(line) - len(line.lstrip())] + clean(line) for line in lines]
