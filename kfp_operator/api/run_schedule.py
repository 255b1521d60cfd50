"""RunSchedule: Runs of one Pipeline by the clock, as a CronJob makes Jobs."""

from typing import Annotated, Literal

from pydantic import Field

from kfp_operator.api.meta import NAMESPACED_NAME, Model, Resource, Status, Time
from kfp_operator.api.run import MAX_PIPELINE_REFERENCE, PIPELINE_REFERENCE, ArtifactDefinition, Parameter, RunTemplate
from kfp_operator.api.schedule import (
    CATCH_UP,
    CONCURRENCY,
    FAILED_KEPT,
    MAX_OWNER_NAME,
    START_DEADLINE,
    SUCCESSFUL_KEPT,
    SUSPEND,
    ActiveRun,
    ConcurrencyPolicy,
    Limit,
    Schedule,
    Seconds,
)
from kfp_operator.api.schema import MAX_NAME, MAX_NAMESPACED_NAME, Enforced, Rule, keyed_by


class RunScheduleSpec(Model):
    """What is run when, and what becomes of the Runs."""

    pipeline: Annotated[str, Enforced(max_length=MAX_PIPELINE_REFERENCE, rules=PIPELINE_REFERENCE)] = Field(
        description="The Pipeline in this namespace, as name or name:version. Without a version, the latest one at each tick."
    )
    provider: Annotated[str, Enforced(max_length=MAX_NAMESPACED_NAME, rules=(NAMESPACED_NAME,))] = Field(
        "", description="The Provider to run on, as namespace/name: the Pipeline's, which is the default."
    )
    experiment_name: Annotated[str, Enforced(max_length=MAX_NAME)] = Field(
        "", description="As in a Run: the Experiment its runs belong to; empty: the backend's default."
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
    catch_up: Literal["Latest", "All", "None"] = Field("Latest", description=CATCH_UP)
    concurrency_policy: ConcurrencyPolicy = Field("Allow", description=CONCURRENCY)
    suspend: bool = Field(False, description=SUSPEND)
    successful_runs_history_limit: Limit = Field(3, description=SUCCESSFUL_KEPT)
    failed_runs_history_limit: Limit = Field(3, description=FAILED_KEPT)

    @property
    def template(self) -> RunTemplate:
        """What its Runs execute."""
        return RunTemplate(**{name: getattr(self, name) for name in RunTemplate.model_fields if name in type(self).model_fields})


class RunScheduleStatus(Status):
    """What it started, and when it starts the next."""

    active: Annotated[list[ActiveRun], Enforced(max_items=100, list_type="atomic")] = Field(
        default_factory=list, description="Its Runs that have not ended."
    )
    last_schedule_time: Time | None = Field(None, description="The last tick that a Run was started for.")
    last_successful_time: Time | None = Field(None, description="End of the last run that succeeded.")
    next_schedule_time: Time | None = Field(None, description="The next tick; absent when there is none or it is suspended.")
    queued_time: Time | None = Field(None, description="The tick whose Run waits for the others to end (concurrencyPolicy QueueLatest).")
    scheduled_until: Time | None = Field(
        None, description="Ticks up to this time are dealt with: their Run was started, or they were passed over."
    )
    schedule: Annotated[str, Enforced(max_length=512)] = Field(
        "",
        description=(
            "The schedule in force; absent while it is suspended or cannot be. When it changes, ticks of the past are passed over: "
            "an edit starts nothing."
        ),
    )


class RunSchedule(Resource):
    """Starts a Run of a Pipeline at every tick of a cron expression."""

    rules = (
        Rule(
            f"self.metadata.name.size() <= {MAX_OWNER_NAME}",
            f"the name of a RunSchedule must have at most {MAX_OWNER_NAME} characters, because its Runs are named after it",
        ),
    )

    spec: RunScheduleSpec = Field(description="What is run when, and what becomes of the Runs.")
    status: RunScheduleStatus = Field(
        default_factory=RunScheduleStatus, description="What it started, and when it starts the next. Written by the operator."
    )
