"""Pipeline: a compiled pipeline, kept in sync with a provider; every synchronized version stays as a ControllerRevision."""

from typing import Any, Literal

from pydantic import Field

from kfp_operator.api.meta import Condition, Model, Resource
from kfp_operator.api.states import SyncState


class ConfigMapKeyRef(Model):
    name: str
    key: str


class PipelineSource(Model):
    config_map_key_ref: ConfigMapKeyRef | None = None


class PipelineSpec(Model):
    provider: str
    """``ns/name``"""
    pipeline_spec: dict[str, Any] | None = None
    """The IR document, or ``{pipelineSpec, platformSpec}`` of both documents."""
    pipeline_spec_from: PipelineSource | None = None
    revision_history_limit: int = 5
    deletion_policy: Literal["Delete", "Orphan"] = "Delete"


class PipelineStatus(Model):
    synchronization_state: SyncState | None = None
    provider: str = ""
    provider_id: str = ""
    version: str = ""
    observed_generation: int = 0
    conditions: list[Condition] = Field(default_factory=list)
    message: str = ""


class Pipeline(Resource):
    spec: PipelineSpec
    status: PipelineStatus = Field(default_factory=PipelineStatus)
