"""Run: one execution of a pipeline.

A Run is a record of what was executed, so its spec is immutable but for what steers a run that is under way. `IMMUTABLE` and
`MUTABLE` name every field of the spec (a test sees to it); the CRD's rules are made from them.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from kfp_operator.api.meta import NAMESPACED_NAME, MicroTime, Model, Resource, Status, Time
from kfp_operator.api.schema import (
    DNS_LABEL,
    DNS_SUBDOMAIN,
    MAX_NAME,
    MAX_NAMESPACED_NAME,
    MAX_VERSION,
    Enforced,
    Rule,
    exactly_one_of,
    immutable,
    keyed_by,
    matches,
)
from kfp_operator.api.states import RunState

IMMUTABLE = frozenset({"pipeline", "provider", "experiment_name", "parameters", "artifacts", "active_deadline_seconds", "retries"})
"""Fields of the spec that say what is executed."""
MUTABLE = frozenset({"cancel", "ttl_seconds_after_finished", "deletion_policy"})
"""Fields of the spec that may change at any time; `cancel` only from false to true."""

MAX_HISTORY = 20
"""States kept in `status.history`: the last ones."""
ARTIFACT_PATH = r"([^\[\]:]+):([^\[\]:]+)(?::([0-9]{0,9}))?(?:\[([^\[\]:]+)\])?"
"""Component, output, index and filter; a colon without an index is index 0."""
MAX_PIPELINE_REFERENCE = MAX_NAME + 1 + MAX_VERSION
PIPELINE_REFERENCE = (
    matches(rf"{DNS_SUBDOMAIN}(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?", 'must be the "name" or "name:version" of a Pipeline in this namespace'),
    Rule(f"self.split(':')[0].size() <= {MAX_NAME}", f"the name of the Pipeline must have at most {MAX_NAME} characters"),
)


class ArtifactDefinition(Model):
    """An artifact of the run that is reported under a name."""

    name: Annotated[str, Enforced(min_length=1, max_length=253)] = Field(description="The name under which it is reported.")
    path: Annotated[
        str,
        Enforced(
            max_length=1024,
            rules=(
                matches(
                    ARTIFACT_PATH,
                    'must be "component:output", "component:output:index" or either with a filter, as trainer:model:0[pushed == 1]',
                ),
            ),
        ),
    ] = Field(
        description=(
            "Which output: component:output[:index][[filter]]. The index (default 0) chooses among several artifacts of one output. "
            "The filter is an expression over the artifact's metadata, as trainer:model[pushed == 1 and framework != tf]; "
            "operators: ==, !=, in, not in, contains, not contains, matches, not matches, is empty, is not empty, and, or, not."
        )
    )
    """``Component:Output[:Index][[filter]]``"""

    @property
    def normal_path(self) -> str:
        """The path with its index written out."""
        found = re.fullmatch(ARTIFACT_PATH, self.path)
        if found is None:
            return self.path
        component, output, index, condition = found.groups()
        return f"{component}:{output}:{int(index or 0)}" + (f"[{condition}]" if condition is not None else "")


ConfigurationReference = Annotated[
    str,
    Enforced(
        min_length=1,
        max_length=MAX_NAMESPACED_NAME,
        rules=(matches(f"({DNS_LABEL}/)?{DNS_SUBDOMAIN}", 'must be the "name" or "namespace/name" of a RunConfiguration, in lower case'),),
    ),
]
"""``[ns/]name``"""


class RunConfigurationRef(Model):
    """An artifact of the latest succeeded run of a RunConfiguration."""

    name: ConfigurationReference = Field(
        description="The RunConfiguration, as name or namespace/name; one in another namespace must allow this one (allowedNamespaces)."
    )
    output_artifact: Annotated[str, Enforced(min_length=1, max_length=253)] = Field(
        description="Name of one of its artifacts; the value is the artifact's URI."
    )
    optional: bool = Field(
        False, description="Whether the parameter is left out while there is no such artifact; else the run waits for it."
    )


class ParameterSource(Model):
    """Where the value comes from."""

    rules = (exactly_one_of(("runConfigurationRef",), "valueFrom must name its source: set runConfigurationRef"),)

    run_configuration_ref: RunConfigurationRef | None = Field(
        None, description="An artifact of the latest succeeded run of a RunConfiguration."
    )


class Parameter(Model):
    """A pipeline parameter: value or valueFrom, not both; with neither it takes the pipeline's default."""

    exclusive = ("value", "valueFrom")

    name: Annotated[str, Enforced(min_length=1, max_length=253)] = Field(description="Name of the pipeline's parameter.")
    value: Annotated[Any, Enforced(nullable=True)] = Field(
        None,
        description=(
            "Its value, unless valueFrom is set: any JSON that fits the type the pipeline declares. "
            'A string is converted, so "3" serves for an integer and "[1, 2]" for a list.'
        ),
    )
    value_from: ParameterSource | None = Field(None, description="Where the value comes from, instead of value.")


class RunTemplate(Model):
    """What is executed, and what becomes of it: of a Run, or of the Runs that a RunConfiguration makes."""

    pipeline: Annotated[str, Enforced(max_length=MAX_PIPELINE_REFERENCE, rules=PIPELINE_REFERENCE)] = Field(
        description=(
            "The Pipeline in this namespace, as name or name:version. Without a version, the latest one when the run starts. "
            "A Pipeline that does not exist yet is waited for."
        )
    )
    """``name[:version]``"""
    provider: Annotated[str, Enforced(max_length=MAX_NAMESPACED_NAME, rules=(NAMESPACED_NAME,))] = Field(
        "", description="The Provider to run on, as namespace/name: the Pipeline's, which is the default."
    )
    """``ns/name``; empty: the Pipeline's."""
    experiment_name: Annotated[str, Enforced(max_length=MAX_NAME)] = Field(
        "",
        description=(
            "The Experiment in this namespace that the run belongs to, or, without one of that name and Provider, what the backend has "
            "under that name; empty: the backend's default."
        ),
    )
    parameters: Annotated[list[Parameter], keyed_by("name", 256)] = Field(
        default_factory=list, description="Values of the pipeline's parameters. Those left out take the pipeline's defaults."
    )
    artifacts: Annotated[list[ArtifactDefinition], keyed_by("name", 64)] = Field(
        default_factory=list, description="Artifacts to report by name in the status and in the completion event."
    )
    active_deadline_seconds: Annotated[int, Enforced(minimum=1, maximum=31_536_000)] | None = Field(
        None,
        description=(
            "Seconds from the begin of its first attempt after which a run that has not ended is stopped and counts as failed: all retries "
            "and the pauses between them are within. Absent: no limit."
        ),
    )
    retries: Annotated[int, Enforced(minimum=0, maximum=100)] = Field(
        0,
        description=(
            "How often a run that failed at the backend is tried again, as another attempt of the same Run, after 10 s, 20 s, 40 s ... "
            "5 min. Not tried again is what was stopped, what the backend refused, and what ran longer than activeDeadlineSeconds."
        ),
    )
    ttl_seconds_after_finished: Annotated[int, Enforced(minimum=0, maximum=315_360_000)] | None = Field(
        None, description="Seconds after its end until this object is deleted. Absent: never."
    )
    deletion_policy: Literal["Cancel", "Orphan"] = Field(
        "Cancel",
        description=(
            "What becomes of the backend's run when this object is deleted before the end: Cancel stops it, Orphan leaves it to itself."
        ),
    )

    @property
    def pipeline_name(self) -> str:
        """The Pipeline's name, without a version."""
        return self.pipeline.partition(":")[0]

    @property
    def pipeline_version(self) -> str:
        """The pinned version, or empty: the latest at the time of submission."""
        return self.pipeline.partition(":")[2]


class RunSpec(RunTemplate):
    """What is executed, and what becomes of it."""

    rules = (
        *(
            immutable(to_camel(field), f"spec.{to_camel(field)} of a Run cannot be changed: create another Run")
            for field in sorted(IMMUTABLE)
        ),
        Rule(
            "!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",
            "spec.cancel cannot be taken back: create another Run",
            ".cancel",
        ),
    )

    cancel: bool = Field(False, description="Set to true to stop the run. Cannot be taken back.")

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The template's fields, and which of them may change in a Run."""
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        properties = dict(schema["properties"])
        for field in IMMUTABLE | MUTABLE - {"cancel"}:
            part = properties[to_camel(field)]
            may = "Immutable." if field in IMMUTABLE else "May be changed at any time."
            properties[to_camel(field)] = {**part, "description": f"{part['description']} {may}"}
        return {**schema, "properties": properties}


class RunArtifact(Model):
    """An artifact that the run produced."""

    name: Annotated[str, Enforced(max_length=253)] = Field(description="The name that spec.artifacts gives it.")
    location: Annotated[str, Enforced(max_length=4096)] = Field(description="Its URI.")
    type: Annotated[str, Enforced(max_length=253)] = Field("", description="Schema title, as system.Model.")
    metadata: Annotated[dict[str, Any], Enforced(max_properties=128)] = Field(
        default_factory=dict, description="What the component wrote about it."
    )


class HistoryEntry(Model):
    """A state that was projected."""

    state: RunState = Field(description="The state entered.")
    time: MicroTime = Field(description="When it was entered, by the backend's clock.")
    attempt: Annotated[int, Enforced(minimum=1)] = Field(1, description="The attempt it belongs to, from 1.")
    message: Annotated[str, Enforced(max_length=1024)] = Field("", description="Why, where there is something to say.")


class Cancellation(Model):
    """A mark that is written before the backend is asked to stop, so that the end is told apart from a failure after a crash."""

    reason: Literal["Cancelled", "Deleted", "DeadlineExceeded"] = Field(
        description="Why: spec.cancel, deletion of this object, or spec.activeDeadlineSeconds."
    )
    time: Time = Field(description="When the operator decided it.")
    attempt: Annotated[int, Enforced(minimum=1)] = Field(1, description="The attempt that is to be stopped.")


class ResolvedParameter(Model):
    """The value that a parameter with valueFrom has in this Run."""

    name: Annotated[str, Enforced(max_length=253)] = Field(description="Name of the pipeline's parameter.")
    value: Annotated[str, Enforced(max_length=4096)] = Field("", description="The artifact's URI; absent when the parameter is left out.")
    run_configuration: Annotated[str, Enforced(max_length=MAX_NAMESPACED_NAME)] = Field(
        "", description="The RunConfiguration it comes from, as namespace/name."
    )
    provider_id: Annotated[str, Enforced(max_length=1024)] = Field("", description="The backend's id of the run that made it.")
    omitted: bool = Field(False, description="Whether the parameter is left out, because it is optional and there was no artifact.")


class RunStatus(Status):
    """How far the run is, and what came of it."""

    state: RunState | None = Field(
        None,
        description="Where the run is. Final: succeeded, failed, upstream_failed, stopped, skipped. Absent: not yet at the backend.",
    )
    attempt: Annotated[int, Enforced(minimum=0)] = Field(0, description="Number of the attempt, from 1; 0 before the first.")
    submission: Annotated[int, Enforced(minimum=1)] | None = Field(
        None,
        description=(
            "Which submission to the backend is on, or comes next while the run waits to be tried again: the first, "
            "and one for each of spec.retries. Absent: the first."
        ),
    )
    first_attempt: Annotated[int, Enforced(minimum=1)] | None = Field(
        None,
        description="The attempt with which that submission begins; later ones are re-opens at the backend. Absent: 1.",
    )
    transition: Annotated[int, Enforced(minimum=0)] = Field(0, description="How many changes of state were reported, over all attempts.")
    completion_state: Literal["Succeeded", "Failed"] | None = Field(
        None, description="The outcome, once there is one; Failed stands for stopped and refused runs too."
    )
    pipeline_version: Annotated[str, Enforced(max_length=MAX_VERSION)] = Field(
        "", description="The version of the Pipeline this run is bound to, from before its submission on."
    )
    start_time: Time | None = Field(None, description="Begin of the run at the backend; with retries that of the first attempt.")
    end_time: Time | None = Field(None, description="End of the run.")
    artifacts: Annotated[list[RunArtifact], Enforced(max_items=256, list_type="atomic")] = Field(
        default_factory=list, description="What the run produced of spec.artifacts. An output of a loop gives several of one name."
    )
    failed_task: Annotated[str, Enforced(max_length=1024)] = Field("", description="The step that failed.")
    url: Annotated[str, Enforced(max_length=2048)] = Field("", description="The backend's page of the run.")
    history: Annotated[list[HistoryEntry], Enforced(max_items=MAX_HISTORY, list_type="atomic")] = Field(
        default_factory=list, description="The last states, oldest first."
    )
    resolved: Annotated[list[ResolvedParameter], Enforced(max_items=256, list_type="atomic")] = Field(
        default_factory=list, description="What parameters with valueFrom have become, once and for all attempts."
    )
    cancellation: Cancellation | None = Field(None, description="Set when the operator has decided to stop the run.")

    @model_validator(mode="before")
    @classmethod
    def _read_go_operators_end(cls, data: Any) -> Any:
        """The Go operator tells the end of a run by completionState alone."""
        if not isinstance(data, dict) or data.get("synchronizationState") or not data.get("completionState"):
            return data
        return {"state": str(data["completionState"]).lower(), **data}


class Run(Resource):
    """One execution of a Pipeline. It starts as soon as its Pipeline and Provider are there, and is a record of it afterwards."""

    spec: RunSpec = Field(description="What is executed, and what becomes of it.")
    status: RunStatus = Field(default_factory=RunStatus, description="How far the run is, and what came of it. Written by the operator.")
