"""Run: one execution of a pipeline."""

from typing import Any, Literal

from pydantic import Field

from kfp_operator.api.meta import Condition, MicroTime, Model, Resource, Time
from kfp_operator.api.states import RunState, SyncState


class ArtifactDefinition(Model):
    """An artifact of the run that is reported under a name."""

    name: str
    path: str
    """``Component:Output[:Index][[filter]]``"""


class Parameter(Model):
    """A pipeline parameter."""

    name: str
    value: Any = None


class RunSpec(Model):
    pipeline: str
    """``name[:version]``"""
    provider: str = ""
    """``ns/name``; empty: the Pipeline's."""
    experiment_name: str = ""
    parameters: list[Parameter] = Field(default_factory=list)
    artifacts: list[ArtifactDefinition] = Field(default_factory=list)
    active_deadline_seconds: int | None = None
    ttl_seconds_after_finished: int | None = None
    deletion_policy: Literal["Cancel", "Orphan"] = "Cancel"
    cancel: bool = False

    @property
    def pipeline_name(self) -> str:
        return self.pipeline.partition(":")[0]

    @property
    def pipeline_version(self) -> str:
        """The pinned version, or empty: the latest at the time of submission."""
        return self.pipeline.partition(":")[2]


class RunArtifact(Model):
    name: str
    location: str
    type: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)


class HistoryEntry(Model):
    """A state that was projected."""

    state: RunState
    time: MicroTime
    attempt: int = 1
    message: str = ""


class Cancellation(Model):
    """A mark that is written before the backend is asked to stop, so that the end is told apart from a failure after a crash."""

    reason: Literal["Cancelled", "Deleted", "DeadlineExceeded"]
    time: Time


class RunStatus(Model):
    synchronization_state: SyncState | None = None
    provider: str = ""
    provider_id: str = ""
    version: str = ""
    observed_generation: int = 0
    conditions: list[Condition] = Field(default_factory=list)
    state: RunState | None = None
    attempt: int = 0
    transition: int = 0
    completion_state: Literal["Succeeded", "Failed"] | None = None
    pipeline_version: str = ""
    start_time: Time | None = None
    end_time: Time | None = None
    artifacts: list[RunArtifact] = Field(default_factory=list)
    message: str = ""
    failed_task: str = ""
    url: str = ""
    history: list[HistoryEntry] = Field(default_factory=list)
    cancellation: Cancellation | None = None


class Run(Resource):
    spec: RunSpec
    status: RunStatus = Field(default_factory=RunStatus)
