"""RunConfiguration: a named template of Runs, and what starts them."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kfp_operator.api.meta import Model, Resource, Status, Time
from kfp_operator.api.provider import Namespace
from kfp_operator.api.run import ConfigurationReference, RunArtifact, RunTemplate
from kfp_operator.api.schedule import (
    CATCH_UP,
    CONCURRENCY,
    FAILED_LIMIT,
    MAX_OWNER_NAME,
    START_DEADLINE,
    SUCCESSFUL_LIMIT,
    SUSPEND,
    ActiveRun,
    Limit,
    Schedule,
    Seconds,
)
from kfp_operator.api.schema import DNS_LABEL, MAX_LABEL, MAX_NAME, MAX_NAMESPACED_NAME, MAX_VERSION, Enforced, Rule, matches

MAX_RECENT = 50
"""Ended Runs that the status remembers."""
MAX_PENDING = 1000
"""Occurrences that wait, of all triggers together."""
MAX_OCCURRENCE = 4096
"""Characters of an occurrence, and so of the annotation that starts a Run by hand."""
NAME = "must be lower case letters, digits and -, as nightly"
UNIQUE_NAMES = Rule(
    "self.all(one, !has(one.name) || one.name == '' || self.exists_one(other, has(other.name) && other.name == one.name))",
    "the names of spec.triggers.schedules must differ",
)
NO_DUPLICATES = Rule(
    "self.all(one, self.exists_one(other, other == one))",
    "a schedule is in spec.triggers.schedules twice: remove one, or give each a name of its own",
)


class NamedSchedule(Schedule):
    """A schedule of a RunConfiguration."""

    name: Annotated[str, Enforced(max_length=MAX_LABEL, rules=(matches(DNS_LABEL, NAME, or_empty=True),))] = Field(
        "", description="Its name, in labels and in status; empty: computed from what it says."
    )
    starting_deadline_seconds: Seconds | None = Field(None, description=START_DEADLINE)
    catch_up: Literal["Latest", "All", "None"] = Field("Latest", description=CATCH_UP)


class Triggers(Model):
    """What starts Runs. To create a RunConfiguration or to add a trigger starts nothing by itself."""

    schedules: Annotated[list[NamedSchedule], Enforced(max_items=32, list_type="atomic", rules=(UNIQUE_NAMES, NO_DUPLICATES))] = Field(
        default_factory=list, description="Ticks of clocks."
    )
    on_change: Annotated[list[Literal["pipeline", "runSpec"]], Enforced(max_items=2, list_type="set")] = Field(
        default_factory=list,
        description="pipeline: the Pipeline got a new version; runSpec: spec.run was changed in what is executed.",
    )
    run_configurations: Annotated[list[ConfigurationReference], Enforced(max_items=64, list_type="set")] = Field(
        default_factory=list, description="A run of one of these RunConfigurations succeeded, as name or namespace/name."
    )


class RunConfigurationSpec(Model):
    """The template, and what starts Runs of it."""

    run: RunTemplate = Field(description="The template of the Runs.")
    triggers: Triggers = Field(default_factory=Triggers, description="What starts Runs.")
    start_from: Literal["New", "Latest"] = Field(
        "New",
        description=(
            "What a new trigger of onChange or runConfigurations looks at: New only what happens from then on, "
            "Latest also the last thing that happened before."
        ),
    )
    concurrency_policy: Literal["Allow", "Forbid", "Replace", "QueueLatest"] = Field("Allow", description=CONCURRENCY)
    suspend: bool = Field(False, description=SUSPEND)
    successful_runs_history_limit: Limit | None = Field(None, description=SUCCESSFUL_LIMIT)
    failed_runs_history_limit: Limit | None = Field(None, description=FAILED_LIMIT)
    allowed_namespaces: Annotated[list[Namespace], Enforced(max_items=256, list_type="set")] = Field(
        default_factory=list,
        description="Other namespaces whose RunConfigurations and Runs may refer to this one, for its runs and artifacts. Empty: none.",
    )


class EndedRun(Model):
    """A run of this configuration that ended."""

    number: Annotated[int, Enforced(minimum=0)] = Field(
        0, description="Its place among all runs that ended, in the order of telling, from 1."
    )
    name: Annotated[str, Enforced(max_length=MAX_NAME)] = Field("", description="Name of the Run.")
    uid: Annotated[str, Enforced(max_length=128)] = Field("", description="The Run's metadata.uid.")
    attempt: Annotated[int, Enforced(minimum=0)] = Field(0, description="The attempt that ended.")
    state: Annotated[str, Enforced(max_length=32)] = Field("", description="How it ended.")
    provider_id: Annotated[str, Enforced(max_length=1024)] = Field("", description="The backend's id of the run.")
    end_time: Time | None = Field(None, description="When it ended.")


class LatestRun(EndedRun):
    """The latest of its kind, with what it produced."""

    artifacts: Annotated[list[RunArtifact], Enforced(max_items=256, list_type="atomic")] = Field(
        default_factory=list, description="What the run produced of spec.run.artifacts."
    )


class LatestRuns(Model):
    """The latest ended runs, by the time of their end."""

    succeeded: LatestRun | None = Field(None, description="The latest run that succeeded.")
    failed: LatestRun | None = Field(None, description="The latest run that failed or was stopped.")

    @model_validator(mode="before")
    @classmethod
    def _read_go_operators_empty_part(cls, data: Any) -> Any:
        """The Go operator writes ``succeeded: {}`` before there is one."""
        return {name: value for name, value in data.items() if value != {}} if isinstance(data, dict) else data


class TriggerStatus(Model):
    """How far a trigger got. What it acted upon last is its baseline: older things start nothing."""

    name: Annotated[str, Enforced(max_length=MAX_NAMESPACED_NAME + 32)] = Field(
        description="schedule/NAME, onChange/pipeline, onChange/runSpec, runConfiguration/NAMESPACE/NAME or manual."
    )
    subject: Annotated[str, Enforced(max_length=128)] = Field(
        "",
        description="What the baseline is about: the uid of the Pipeline or RunConfiguration, or the hash of the schedule. "
        "Another one gets a baseline of its own, which starts nothing.",
    )
    baseline: Annotated[str, Enforced(max_length=MAX_OCCURRENCE)] = Field(
        "", description="What it has seen last: a version, the number of an upstream run, the time of a tick, or the annotation."
    )
    last_run: Annotated[str, Enforced(max_length=MAX_NAME)] = Field("", description="Name of the Run it started last.")
    last_time: Time | None = Field(None, description="When it started that.")
    pending: Annotated[list[Annotated[str, Enforced(max_length=MAX_OCCURRENCE)]], Enforced(max_items=MAX_PENDING, list_type="atomic")] = (
        Field(default_factory=list, description="What happened and has not been acted upon, oldest first.")
    )
    suppressed: Annotated[int, Enforced(minimum=0)] = Field(
        0, description="How often it started nothing: by suspension, by concurrencyPolicy, or because it came too late or was too much."
    )
    message: Annotated[str, Enforced(max_length=1024)] = Field("", description="What it waits for, or why it last started nothing.")


class Dependency(Model):
    """What another RunConfiguration gives to this one."""

    name: Annotated[str, Enforced(max_length=MAX_NAMESPACED_NAME)] = Field(description="The RunConfiguration, as namespace/name.")
    provider_id: Annotated[str, Enforced(max_length=1024)] = Field("", description="The backend's id of its latest succeeded run.")
    artifacts: Annotated[list[RunArtifact], Enforced(max_items=256, list_type="atomic")] = Field(
        default_factory=list, description="The artifacts of that run."
    )


class RunConfigurationStatus(Status):
    """What it started, what came of it, and what starts next."""

    @model_validator(mode="before")
    @classmethod
    def _read_go_operator_lists(cls, data: Any) -> Any:
        """The Go operator's status has maps for triggers and dependencies. What they say is found anew, and starts nothing."""
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if name not in ("triggers", "dependencies") or isinstance(value, list)}

    latest_runs: LatestRuns = Field(default_factory=LatestRuns, description="The latest ended runs, by the time of their end.")
    recent_runs: Annotated[list[EndedRun], Enforced(max_items=MAX_RECENT, list_type="atomic")] = Field(
        default_factory=list, description="The last ended runs, in the order in which their ends were told, oldest first."
    )
    triggers: Annotated[list[TriggerStatus], Enforced(max_items=256, list_type="atomic")] = Field(
        default_factory=list, description="How far each trigger got."
    )
    dependencies: Annotated[list[Dependency], Enforced(max_items=64, list_type="atomic")] = Field(
        default_factory=list, description="What the RunConfigurations that parameters refer to give."
    )
    active: Annotated[list[ActiveRun], Enforced(max_items=100, list_type="atomic")] = Field(
        default_factory=list, description="Its Runs that have not ended."
    )
    pipeline_version: Annotated[str, Enforced(max_length=MAX_VERSION)] = Field("", description="The Pipeline's version that Runs get now.")
    last_schedule_time: Time | None = Field(None, description="The last tick a Run was made for.")
    last_successful_time: Time | None = Field(None, description="End of the last run that succeeded.")
    next_schedule_time: Time | None = Field(None, description="The next tick of any schedule.")


class RunConfiguration(Resource):
    """A named template of Runs with triggers: schedules, changes, and the success of other RunConfigurations."""

    rules = (
        Rule(
            f"self.metadata.name.size() <= {MAX_OWNER_NAME}",
            f"metadata.name of a RunConfiguration must have at most {MAX_OWNER_NAME} characters, because its Runs are named after it",
        ),
        Rule(
            "!has(self.spec.triggers) || !has(self.spec.triggers.runConfigurations) || "
            "!(self.metadata.name in self.spec.triggers.runConfigurations)",
            "a RunConfiguration cannot be started by itself: leave its own name out of spec.triggers.runConfigurations",
            ".spec.triggers.runConfigurations",
        ),
    )

    spec: RunConfigurationSpec = Field(description="The template, and what starts Runs of it.")
    status: RunConfigurationStatus = Field(
        default_factory=RunConfigurationStatus,
        description="What it started, what came of it, and what starts next. Written by the operator.",
    )
