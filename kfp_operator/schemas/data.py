"""What users of the events import: the data of every event this operator publishes.

Needs neither Kopf nor a Kubernetes client. JSON names are camelCase, absent names are "", absent lists []; data is additive within v1:
a consumer must ignore members it does not know.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

__all__ = ["Artifact", "Cause", "RunCompletion", "RunStatus", "ServingModelArtifact", "Span"]


def _rfc3339(value: datetime) -> str:
    utc = value.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds" if utc.microsecond else "seconds").replace("+00:00", "Z")


Timestamp = Annotated[AwareDatetime, PlainSerializer(_rfc3339, when_used="json")]
"""RFC 3339 in UTC, ``2026-01-02T03:04:05Z``."""


class EventData(BaseModel):
    """Base of all event data."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Artifact(EventData):
    """An artifact that the Run declares, as its run produced it."""

    name: str = Field(description="The name the Run gives it.")
    location: str = Field(description="Its URI.")
    type: str = Field("", description="Schema title, as system.Model.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="What the component wrote about it.")


class ServingModelArtifact(EventData):
    """Deprecated form of a model that was pushed for serving; `artifacts` replaces it."""

    name: str = Field(description="<pipeline>:<runId>:<component>:<output>:<index>")
    location: str = Field(description="Its URI.")


class Span(EventData):
    """When something took place."""

    start_time: Timestamp | None = Field(None, description="Begin, RFC 3339.")
    end_time: Timestamp | None = Field(None, description="End, RFC 3339.")


class Cause(EventData):
    """What started the Run."""

    type: str = Field("", description="Kind of trigger; empty when a person or a program created the Run.")
    source: str = Field("", description="What triggered it, as namespace/name.")


class RunCompletion(EventData):
    """Data of org.kubeflow.pipelines.run-completion: a run ended succeeded, failed or stopped. Names are namespace/name."""

    provider: str = Field(description="The Provider, as namespace/name.")
    status: Literal["succeeded", "failed"] = Field(description="The outcome: failed stands for stopped and refused runs too.")
    state: str = Field(description="The exact final state: succeeded, failed or stopped.")
    pipeline_name: str = Field(description="The Pipeline, as namespace/name.")
    pipeline_version: str = Field("", description="The Pipeline's version that ran.")
    experiment_name: str = Field("", description="The experiment, or empty.")
    run_name: str = Field(description="The Run, as namespace/name; empty when others started the run and the Provider observes.")
    run_uid: str = Field(description="The Run's metadata.uid; empty when there is no Run.")
    run_configuration_name: str = Field("", description="The RunConfiguration that made the Run, as namespace/name, or empty.")
    run_id: str = Field("", description="The backend's id of the run; empty when it never got there.")
    attempt: int = Field(1, ge=1, description="Number of the attempt, from 1.")
    submission: int = Field(1, ge=1, description="Which submission to the backend it was, from 1: the first, and one for each retry.")
    first_attempt: int = Field(1, ge=1, description="The attempt with which that submission began; later ones are re-opens at the backend.")
    serving_model_artifacts: list[ServingModelArtifact] = Field(default_factory=list, description="Deprecated: models pushed for serving.")
    artifacts: list[Artifact] = Field(default_factory=list, description="The artifacts that the Run declares.")
    artifacts_complete: bool = Field(True, description="False when the backend did not tell the artifacts in time.")
    training: Span = Field(default_factory=Span, description="When the training steps ran, where the backend can tell, else the run.")
    run_start_time: Timestamp | None = Field(None, description="Begin of the run at the backend.")
    run_end_time: Timestamp | None = Field(None, description="End of the run.")
    message: str = Field("", description="Why it failed.")
    failed_task: str = Field("", description="The step that failed.")
    url: str = Field("", description="The backend's page of the run.")
    trigger: Cause = Field(default_factory=Cause, description="What started the Run.")
    truncated: bool = Field(False, description="True when metadata, artifacts or the message were cut to the size limit.")

    @property
    def observed(self) -> bool:
        """Whether others started the run, so that there is no Run object; names are the backend's own then."""
        return not self.run_uid and not self.run_name


class RunStatus(EventData):
    """Data of org.kubeflow.pipelines.run-status: a run entered a state. Names are namespace/name."""

    provider: str = Field(description="The Provider, as namespace/name.")
    pipeline_name: str = Field(description="The Pipeline, as namespace/name.")
    run_name: str = Field(description="The Run, as namespace/name.")
    run_uid: str = Field(description="The Run's metadata.uid.")
    run_configuration_name: str = Field("", description="The RunConfiguration that made the Run, as namespace/name, or empty.")
    run_id: str = Field("", description="The backend's id of the run.")
    attempt: int = Field(1, ge=1, description="Number of the attempt, from 1.")
    submission: int = Field(
        1, ge=1, description="Which submission to the backend is on, from 1; of the state retrying: the one that comes next."
    )
    first_attempt: int = Field(
        1, ge=1, description="The attempt with which that submission begins; later ones are re-opens at the backend."
    )
    transition: int = Field(ge=1, description="Number of this change of state, from 1, counted over the Run's life.")
    state: str = Field(description="The state entered.")
    previous_state: str = Field("", description="The state left; empty at first.")
    time: Timestamp = Field(description="When the backend says it was entered.")
    run_start_time: Timestamp | None = Field(None, description="Begin of the attempt at the backend, once it has begun.")
    message: str = Field("", description="Why, where there is something to say.")
    artifacts: list[Artifact] = Field(default_factory=list, description="Artifacts that are new with this change.")
    url: str = Field("", description="The backend's page of the run.")
    truncated: bool = Field(False, description="True when the message or artifacts were cut to the size limit.")
