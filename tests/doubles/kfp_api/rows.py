"""What the server keeps: rows of its database, in memory.

Times are aware datetimes and kept in whole seconds, as the server's columns are.
"""

import itertools
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

UNFINISHED = datetime(1970, 1, 1, tzinfo=UTC)
FINAL = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})

Now = Callable[[], datetime]
"""The clock: aware, UTC."""


def seconds(moment: datetime) -> datetime:
    """The moment without its fraction."""
    return moment.replace(microsecond=0)


@dataclass
class Pipeline:
    """A row of `pipelines`."""

    id: str
    name: str
    display_name: str
    created: datetime
    namespace: str = ""
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Version:
    """A row of `pipeline_versions`."""

    id: str
    pipeline: str
    name: str
    display_name: str
    created: datetime
    spec: dict[str, Any]
    """The whole document that the API shows: the PipelineSpec, or both documents under their names."""
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Experiment:
    """A row of `experiments`."""

    id: str
    name: str
    created: datetime
    namespace: str = ""
    description: str = ""
    archived: bool = False
    last_run: datetime = UNFINISHED


@dataclass(frozen=True)
class Change:
    """An entry of a state history."""

    state: str
    time: datetime


@dataclass
class TaskRow:
    """A row of `tasks`: a node of a Workflow, as it was last reported."""

    id: str
    name: str
    state: str
    """Empty: left out by a condition."""
    created: datetime
    started: datetime | None
    finished: datetime | None
    history: list[Change]


@dataclass
class Run:
    """A row of `run_details`."""

    id: str
    name: str
    created: datetime
    experiment: str
    namespace: str
    state: str
    history: list[Change]
    pipeline: str = ""
    version: str = ""
    spec: dict[str, Any] | None = None
    """An inline spec; without one the run names its version."""
    parameters: dict[str, Any] = field(default_factory=dict)
    pipeline_root: str = ""
    description: str = ""
    service_account: str = "pipeline-runner"
    scheduled: datetime = UNFINISHED
    finished: datetime = UNFINISHED
    archived: bool = False
    recurring_run: str = ""
    tasks: dict[str, TaskRow] = field(default_factory=dict)
    retries: int = 0

    @property
    def done(self) -> bool:
        """Whether the state is final."""
        return self.state in FINAL

    def enter(self, state: str, time: datetime) -> None:
        """Be in this state; the history tells it if it is news."""
        self.state = state
        if not self.history or self.history[-1].state != state:
            self.history.append(Change(state, seconds(time)))


@dataclass
class RecurringRun:
    """A row of `jobs`."""

    id: str
    name: str
    created: datetime
    experiment: str
    namespace: str
    request: Mapping[str, Any]
    enabled: bool
    count: int = 0


class Rows:
    """All tables."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self._salt = itertools.count(1)
        self.pipelines: dict[str, Pipeline] = {}
        self.versions: dict[str, Version] = {}
        self.experiments: dict[str, Experiment] = {}
        self.runs: dict[str, Run] = {}
        self.recurring_runs: dict[str, RecurringRun] = {}

    def now(self) -> datetime:
        """The time, in whole seconds."""
        return seconds(self._now())

    def new_id(self) -> str:
        """An id like the server's own, a different one each time and the same ones in each test."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"row {next(self._salt)}"))

    def versions_of(self, pipeline: str) -> list[Version]:
        """A pipeline's versions, oldest first."""
        return sorted((v for v in self.versions.values() if v.pipeline == pipeline), key=lambda v: (v.created, v.id))
