"""Experiment: a grouping of runs at the backend."""

from typing import Annotated

from pydantic import Field

from kfp_operator.api.meta import REQUIRED_NAMESPACED_NAME, Model, Resource, Status
from kfp_operator.api.schema import MAX_NAMESPACED_NAME, Enforced, immutable


class ExperimentSpec(Model):
    """Where the grouping exists, and what it is for."""

    rules = (immutable("provider", "spec.provider of an Experiment cannot be changed: create another Experiment for the other Provider"),)

    provider: Annotated[str, Enforced(max_length=MAX_NAMESPACED_NAME, rules=(REQUIRED_NAMESPACED_NAME,))] = Field(
        description="The Provider it exists at, as namespace/name. Immutable."
    )
    description: Annotated[str, Enforced(max_length=4096)] = Field("", description="What the experiment is for, shown at the backend.")


class ExperimentStatus(Status):
    """Whether the backend has it."""


class Experiment(Resource):
    """A grouping of runs at the backend. Runs name it in spec.experimentName."""

    spec: ExperimentSpec = Field(description="Where the grouping exists, and what it is for.")
    status: ExperimentStatus = Field(default_factory=ExperimentStatus, description="Whether the backend has it. Written by the operator.")
