"""Provider: an ML backend."""

from typing import Any

from pydantic import Field

from kfp_operator.api.meta import Condition, Model, Resource
from kfp_operator.api.states import SyncState


class ProviderSpec(Model):
    type: str
    pipeline_root_storage: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    allowed_namespaces: list[str] = Field(default_factory=list)
    max_active_runs: int | None = None


class ProviderStatus(Model):
    synchronization_state: SyncState | None = None
    provider: str = ""
    provider_id: str = ""
    version: str = ""
    observed_generation: int = 0
    conditions: list[Condition] = Field(default_factory=list)
    message: str = ""
    active_runs: int = 0


class Provider(Resource):
    spec: ProviderSpec
    status: ProviderStatus = Field(default_factory=ProviderStatus)
