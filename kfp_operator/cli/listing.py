"""Events on a terminal: one line each, for people or for programs."""

import json
from datetime import UTC
from typing import Literal

import typer
from cloudevents.core.formats.json import JSONFormat

from kfp_operator.cli.progress import clean
from kfp_operator.errors import EventError
from kfp_operator.events import envelope
from kfp_operator.events.bus import StoredMessage
from kfp_operator.events.envelope import Received
from kfp_operator.events.subjects import Subjects
from kfp_operator.schemas import RunCompletion

_STATE_WIDTH = 12


class Listing:
    """Prints events, and says on standard error which messages are none."""

    def __init__(self, subjects: Subjects, output: Literal["text", "json"]) -> None:
        self._subjects = subjects
        self._output = output
        self.shown = 0
        """Events printed so far."""

    def show(self, message: StoredMessage) -> bool:
        """Print the event in the message; False when there is none."""
        try:
            received = envelope.receive(self._subjects, message)
        except EventError as error:
            typer.echo(f"... message {message.sequence} on {message.subject} is no event: {clean(str(error))}", err=True)
            return False
        typer.echo(_json(received) if self._output == "json" else text(received))
        self.shown += 1
        return True


def text(received: Received) -> str:
    """Time in UTC, what it is about, what happened: ``2026-03-01T12:00:00Z  team/train-1  status  running``."""
    data = received.data
    completion = isinstance(data, RunCompletion)
    time = data.run_end_time if isinstance(data, RunCompletion) else data.time
    when = time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if time is not None else " " * 20
    about = data.run_name or f"{data.provider} run {data.run_id}"  # others started it: there is no Run
    parts = [when, clean(about), f"{'completion' if completion else 'status':<10}", f"{data.state:<{_STATE_WIDTH}}"]
    if data.attempt > 1:
        parts.append(f"attempt {data.attempt}")
    if data.artifacts:
        parts.append(f"{len(data.artifacts)} artifact{'s' * (len(data.artifacts) > 1)}")
    if data.message:
        parts.append(clean(data.message, 200))
    return "  ".join(parts).rstrip()


def _json(received: Received) -> str:
    return json.dumps(json.loads(JSONFormat().write(received.event)), ensure_ascii=False, separators=(",", ":"))
