"""RunSchedule: Runs of one Pipeline by the clock, as a CronJob makes Jobs."""

from typing import Annotated, Literal

from pydantic import Field

from kfp_operator.api.meta import NAMESPACED_NAME, Model, Resource, Status, Time
from kfp_operator.api.run import MAX_PIPELINE_REFERENCE, PIPELINE_REFERENCE, ArtifactDefinition, Parameter
from kfp_operator.api.schedule import (
    CONCURRENCY,
    FAILED_LIMIT,
    START_DEADLINE,
    SUCCESSFUL_LIMIT,
    SUSPEND,
    ActiveRun,
    Limit,
    Schedule,
    Seconds,
)
from kfp_operator.api.schema import MAX_NAME, MAX_NAMESPACED_NAME, Enforced, keyed_by


class RunScheduleSpec(Model):
    """What is run when, and what becomes of the Runs."""

    pipeline: Annotated[str, Enforced(max_length=MAX_PIPELINE_REFERENCE, rules=PIPELINE_REFERENCE)] = Field(
        description="The Pipeline in this namespace, as name or name:version. Without a version, the latest one at each tick."
    )
    provider: Annotated[str, Enforced(max_length=MAX_NAMESPACED_NAME, rules=(NAMESPACED_NAME,))] = Field(
        "", description="The Provider to run on, as namespace/name: the Pipeline's, which is the default."
    )
    experiment_name: Annotated[str, Enforced(max_length=MAX_NAME)] = Field(
        "", description="The Experiment its runs belong to; empty: the backend's default."
    )
    parameters: Annotated[list[Parameter], keyed_by("name", 256)] = Field(
        default_factory=list, description="Values of the pipeline's parameters. Those left out take the pipeline's defaults."
    )
    artifacts: Annotated[list[ArtifactDefinition], keyed_by("name", 64)] = Field(
        default_factory=list, description="Artifacts to report by name."
    )
    schedule: Schedule = Field(description="When.")
    active_deadline_seconds: Seconds | None = Field(None, description="As in a Run: seconds after which a run is stopped.")
    retries: Annotated[int, Enforced(minimum=0, maximum=100)] = Field(0, description="As in a Run: how often a failed run is tried again.")
    starting_deadline_seconds: Seconds | None = Field(None, description=START_DEADLINE)
    catch_up: Literal["Latest", "All", "None"] = Field(
        "Latest", description="Which of the ticks that were missed are made up for: the latest one, all (at most 100), or none."
    )
    concurrency_policy: Literal["Allow", "Forbid", "Replace", "QueueLatest"] = Field("Allow", description=CONCURRENCY)
    suspend: bool = Field(False, description=SUSPEND)
    successful_runs_history_limit: Limit | None = Field(3, description=SUCCESSFUL_LIMIT)
    failed_runs_history_limit: Limit | None = Field(3, description=FAILED_LIMIT)


class RunScheduleStatus(Status):
    """What it started, and when it starts the next."""

    active: Annotated[list[ActiveRun], Enforced(max_items=100, list_type="atomic")] = Field(
        default_factory=list, description="Its Runs that have not ended."
    )
    last_schedule_time: Time | None = Field(None, description="The last tick a Run was made for, or that was passed over.")
    last_successful_time: Time | None = Field(None, description="End of the last run that succeeded.")
    next_schedule_time: Time | None = Field(None, description="The next tick; absent when there is none or it is suspended.")


class RunSchedule(Resource):
    """Starts a Run of a Pipeline at every tick of a cron expression."""

    spec: RunScheduleSpec = Field(description="What is run when, and what becomes of the Runs.")
    status: RunScheduleStatus = Field(
        default_factory=RunScheduleStatus, description="What it started, and when it starts the next. Written by the operator."
    )
