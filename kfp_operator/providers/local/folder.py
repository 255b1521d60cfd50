"""The folder of one run: all that is known of it, in files that are written whole.

============== ======================= ==========================================================================================
file           written by              says
============== ======================= ==========================================================================================
submission.json provider, before the   what to run, with what, since when it waits
                folder is visible
pipeline.yaml   likewise               the resolved IR
claim.json      driver (or provider)   who decides what becomes of the run, once; see `driver`
cancel.json     provider, once         that it shall stop, and since when
events.jsonl    worker                 begin and end of its steps
result.json     who claimed it, once   how it ended
log/            driver                 what it printed
============== ======================= ==========================================================================================

A run's state is computed from these files alone, so a restarted operator says the same of it as the one before. What a provider writes
itself, it writes only in two cases: a run that no driver claimed, and one whose driver vanished.
"""

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError

from kfp_operator.api.states import RunState
from kfp_operator.errors import Permanent
from kfp_operator.providers.local import driver
from kfp_operator.providers.local.rewrite import Resolved, Step
from kfp_operator.providers.protocol import RunUpdate, StateChange, Submission, Task

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SOURCES = Path(__file__).parent
_D = TypeVar("_D", bound=BaseModel)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class Options(_Document):
    """What the driver and the worker need of the Provider's parameters, as they were when the run was submitted."""

    python: str
    packages: Literal["preinstalled", "install"]
    grace: float
    max_log_bytes: int
    environment: dict[str, str]
    root: str
    """kfp's pipeline root: the folder of all outputs, this run's own."""


class SubmissionFile(_Document):
    """submission.json."""

    id: str
    namespace: str
    name: str
    uid: str
    attempt: int
    pipeline: str
    pipeline_version: str
    time: AwareDatetime
    order: int
    """Place in the queue: nanoseconds since 1970."""
    parameters: dict[str, Any]
    options: Options
    steps: dict[str, Step]


class ClaimFile(_Document):
    """claim.json. `process` is None when the provider claimed the run to end it."""

    time: AwareDatetime
    process: driver.Identity | None = None


class CancelFile(_Document):
    """cancel.json."""

    time: AwareDatetime


class ResultFile(_Document):
    """result.json."""

    state: Literal["succeeded", "failed", "stopped"]
    time: AwareDatetime
    message: str = ""
    failed_task: str = ""


class StepEvent(_Document):
    """One line of events.jsonl about a step."""

    time: AwareDatetime
    event: Literal["start", "end"]
    path: str
    component: str
    root: str
    code: int | None = None


@dataclass(frozen=True, slots=True)
class StepRun:
    """The last try of one step."""

    path: str
    component: str
    root: str
    start: datetime
    end: datetime | None = None
    code: int | None = None


class RunFolder:
    """Reads and writes one run's folder. No method blocks for longer than small files take."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        """The submission's id."""
        return self.path.name

    @classmethod
    def of(cls, runs: Path, submission_id: str) -> Self:
        """The folder of a submission, whether it exists or not. Raises Permanent for an id that cannot name a folder."""
        if not _ID.fullmatch(submission_id):
            raise Permanent(f"submission id {submission_id!r} has characters other than letters, digits, - and _")
        return cls(runs / submission_id)

    def prepare(self, submission: Submission, resolved: Resolved, options: Options, *, order: int) -> Path:
        """Write a complete folder under another name, which `appear` takes."""
        path = self.path.with_name(f".new-{submission.id}-{uuid.uuid4().hex}")
        path.mkdir(mode=0o700, parents=True)
        for name in (driver.WORK, driver.TEMPORARY, driver.LOG):
            (path / name).mkdir()
        for name in (driver.DRIVER, driver.WORKER):
            shutil.copyfile(_SOURCES / name, path / name)
        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        (path / driver.PIPELINE).write_text(yaml.dump(resolved.ir, Dumper=dumper, sort_keys=False), encoding="ascii")
        document = SubmissionFile(
            id=submission.id,
            namespace=submission.namespace,
            name=submission.name,
            uid=submission.uid,
            attempt=submission.attempt,
            pipeline=f"{submission.pipeline.namespace}/{submission.pipeline.name}",
            pipeline_version=submission.pipeline.version,
            time=datetime.now(UTC),
            order=order,
            parameters=dict(submission.parameters),
            options=options,
            steps=dict(resolved.steps),
        )
        driver.create_json(path / driver.SUBMISSION, document.model_dump(mode="json"))
        return path

    def appear(self, prepared: Path) -> bool:
        """Make the prepared folder visible, whole, in one step; False when the run exists."""
        try:
            prepared.rename(self.path)
        except OSError:
            shutil.rmtree(prepared)
            if self.exists():
                return False
            raise
        return True

    def exists(self) -> bool:
        """Whether the run was submitted."""
        return (self.path / driver.SUBMISSION).exists()

    def submission(self) -> SubmissionFile:
        """What was submitted. Raises OSError or ValidationError for a folder that something else wrote to."""
        return SubmissionFile.model_validate_json((self.path / driver.SUBMISSION).read_bytes())

    def claim(self) -> ClaimFile | None:
        """Who claimed the run, if someone did."""
        return _read(self.path / driver.CLAIM, lambda time: ClaimFile(time=time), ClaimFile)

    def cancellation(self) -> CancelFile | None:
        """Since when the run shall stop, if it shall."""
        return _read(self.path / driver.CANCEL, lambda time: CancelFile(time=time), CancelFile)

    def result(self) -> ResultFile | None:
        """How the run ended, if it did. A result that its own steps made unreadable is a failure."""
        path = self.path / driver.RESULT
        broken = f"the run's result in {path} cannot be read"
        return _read(path, lambda time: ResultFile(state="failed", time=time, message=broken), ResultFile)

    def ended(self) -> bool:
        """Whether the run has ended."""
        return (self.path / driver.RESULT).exists()

    def ended_after(self, since: float) -> bool:
        """Whether the run ended after that time (seconds since 1970) or has not ended. One look at one file."""
        try:
            return (self.path / driver.RESULT).stat().st_mtime >= since
        except FileNotFoundError:
            return True

    def end_unclaimed(self, state: Literal["failed", "stopped"], message: str) -> bool:
        """End a run that never started; False when a driver was faster and has it."""
        if not driver.create_json(self.path / driver.CLAIM, {"time": driver.now(), "process": None}):
            return False
        self.end(state, message)
        return True

    def end(self, state: Literal["failed", "stopped"], message: str, failed_task: str = "") -> None:
        """Write the result in place of a driver that cannot; nothing when there is one."""
        document = {"state": state, "time": driver.now(), "message": driver.plain(message), "failed_task": failed_task}
        driver.create_json(self.path / driver.RESULT, document)

    def cancel(self) -> None:
        """Note that the run shall stop; the first time counts."""
        driver.create_json(self.path / driver.CANCEL, {"time": driver.now()})

    def held(self) -> bool:
        """Whether a driver lives: it holds the lock."""
        try:
            descriptor = os.open(self.path / driver.LOCK, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)

    def progress(self) -> int:
        """A number that grows with every event of the run's steps."""
        try:
            return (self.path / driver.EVENTS).stat().st_size
        except FileNotFoundError:
            return 0

    def step_runs(self) -> Sequence[StepRun]:
        """The steps that began, in that order, each as its last try."""
        steps: dict[str, StepRun] = {}
        for document in driver.read_events(self.path):
            try:
                event = _STEP_EVENT.validate_python(document)
            except ValidationError:
                continue  # the worker's own word about the pipeline, or a line that a step wrote
            if event.event == "start":
                steps[event.path] = StepRun(event.path, event.component, event.root, event.time)
            elif event.path in steps:
                begun = steps[event.path]
                steps[event.path] = StepRun(begun.path, begun.component, begun.root, begun.start, event.time, event.code)
        return list(steps.values())

    def driver_errors(self) -> str:
        """The last line that the driver itself printed: why it could not start or went down."""
        try:
            text = (self.path / driver.DRIVER_ERRORS).read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return driver.plain((text.strip().splitlines() or [""])[-1])

    def update(self, waiting: str) -> RunUpdate:
        """All that is known of the run. `waiting`: what to say of a run that is in the queue."""
        # in the reverse order of their making, so that what is seen is never without what came before it
        result, cancellation, claim, submission = self.result(), self.cancellation(), self.claim(), self.submission()
        history = [StateChange(RunState.QUEUED, submission.time)]
        started = claim.time if claim is not None and claim.process is not None else None
        if started is not None:
            history.append(StateChange(RunState.RUNNING, max(started, submission.time)))
        if cancellation is not None and started is not None and (result is None or cancellation.time <= result.time):
            history.append(StateChange(RunState.STOPPING, max(cancellation.time, history[-1].time)))
        if result is not None:
            history.append(StateChange(RunState(result.state), max(result.time, history[-1].time)))
        steps = self.step_runs() if started is not None else []
        trained = [step for step in steps if step.end is not None and self._trains(submission.steps, step)]
        return RunUpdate(
            submission_id=self.id,
            provider_id=self.id,
            history=tuple(history),
            message=result.message if result else waiting if started is None else "",
            failed_task=result.failed_task if result else "",
            start_time=started,
            end_time=result.time if result else None,
            training_start=min((step.start for step in trained), default=None),
            training_end=max((step.end for step in trained if step.end), default=None),
            tasks=tuple(Task(step.path, _step_state(step, result), step.start, step.end) for step in steps),
        )

    @staticmethod
    def _trains(steps: Mapping[str, Step], step: StepRun) -> bool:
        declared = steps.get(step.component)
        return declared is not None and declared.trains


def _step_state(step: StepRun, result: ResultFile | None) -> RunState:
    if step.code == 0:
        return RunState.SUCCEEDED
    if result is not None and result.state == "stopped":
        return RunState.STOPPED
    return RunState.RUNNING if step.code is None and result is None else RunState.FAILED


def _read(path: Path, broken: Callable[[datetime], _D], model: type[_D]) -> _D | None:
    """The document, None when there is none. Steps run as the same user and can write here: for one that they broke,
    `broken` says what its presence means, given the time of the file.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        return broken(datetime.fromtimestamp(path.stat().st_mtime, UTC))


_STEP_EVENT: TypeAdapter[StepEvent] = TypeAdapter(StepEvent)
