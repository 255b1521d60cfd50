"""Provider: an ML backend."""

from typing import Annotated, Any

from pydantic import Field

from kfp_operator.api.meta import Model, Resource, Status, Time
from kfp_operator.api.schema import DNS_LABEL, MAX_LABEL, Enforced, Rule, matches

Namespace = Annotated[str, Enforced(max_length=MAX_LABEL, rules=(matches(DNS_LABEL, "must be the name of a namespace, as team-a"),))]


class ProviderSpec(Model):
    """Which backend, how to reach it, and who may use it."""

    rules = (
        Rule(  # one of the Go operator has no type, and gets one by being applied anew
            "!has(oldSelf.type) || self.type == oldSelf.type",
            "spec.type of a Provider cannot be changed: create another Provider and let Pipelines and Runs name it",
            ".type",
        ),
    )

    type: Annotated[
        str, Enforced(min_length=1, max_length=MAX_LABEL, rules=(matches(DNS_LABEL, "must be the name of a provider type, as local"),))
    ] = Field(description="The kind of backend: local (kfp.local in a process beside the operator) or an installed plugin. Immutable.")
    pipeline_root_storage: Annotated[str, Enforced(max_length=1024)] = Field(
        "", description="Where runs keep their artifacts, as gs://bucket/path; empty: the backend's default."
    )
    parameters: Annotated[dict[str, Any], Enforced(max_properties=64)] = Field(
        default_factory=dict, description="Settings of the backend. Each type documents and checks its own; an unknown name is an error."
    )
    allowed_namespaces: Annotated[list[Namespace], Enforced(max_items=256, list_type="set")] = Field(
        default_factory=list,
        description="Namespaces whose Pipelines and Runs may use this Provider. Empty: all; for type local: the Provider's own.",
    )
    max_active_runs: Annotated[int, Enforced(minimum=1, maximum=100_000)] | None = Field(
        None, description="How many runs may be active at the backend at once; more wait in state queued. Absent: the type's default."
    )


class ProviderStatus(Status):
    """Whether the backend can be used."""

    observed_until: Time | None = Field(
        None,
        description="Of a Provider that observes runs which others start: completions of all that ended before this time are told.",
    )


class Provider(Resource):
    """An ML backend that Pipelines and Runs name, as namespace/name, and the operator submits to."""

    spec: ProviderSpec = Field(description="Which backend, how to reach it, and who may use it.")
    status: ProviderStatus = Field(default_factory=ProviderStatus, description="Whether the backend can be used. Written by the operator.")
