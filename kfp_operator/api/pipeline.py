"""Pipeline: a compiled pipeline, kept in sync with a provider; every synchronized version stays as a ControllerRevision."""

from typing import Annotated, Any, Literal

from pydantic import Field

from kfp_operator.api.meta import REQUIRED_NAMESPACED_NAME, Model, Resource, Status
from kfp_operator.api.schema import (
    DNS_SUBDOMAIN,
    MAX_NAME,
    MAX_NAMESPACED_NAME,
    Enforced,
    Rule,
    exactly_one_of,
    immutable,
    keyed_by,
    matches,
)

SOURCES = ("pipelineSpec", "pipelineSpecFrom", "image")
"""Exactly one of them says what the pipeline is."""
REFERENCES = ("configMapKeyRef",)
"""Exactly one of them says where the pipeline is kept."""


class ConfigMapKeyRef(Model):
    """A key of a ConfigMap in the Pipeline's namespace."""

    name: Annotated[
        str, Enforced(min_length=1, max_length=MAX_NAME, rules=(matches(DNS_SUBDOMAIN, "must be the name of a ConfigMap, in lower case"),))
    ] = Field(description="Name of a ConfigMap in the Pipeline's namespace.")
    key: Annotated[
        str,
        Enforced(
            min_length=1,
            max_length=MAX_NAME,
            rules=(matches("[-._a-zA-Z0-9]+", "must be a key of a ConfigMap, as pipeline.yaml"),),
        ),
    ] = Field(description="Key of its data (or binaryData) that holds the compiled pipeline: YAML or JSON of one or two documents.")


class PipelineSource(Model):
    """Where the compiled pipeline is kept."""

    rules = (exactly_one_of(REFERENCES, "spec.pipelineSpecFrom must name its source: set configMapKeyRef"),)

    config_map_key_ref: ConfigMapKeyRef | None = Field(None, description="A key of a ConfigMap. A change of it makes a new version.")


class EnvironmentVariable(Model):
    """A variable that the code sees while it is compiled."""

    name: Annotated[str, Enforced(min_length=1, max_length=253)] = Field(description="Name of the variable.")
    value: Annotated[str, Enforced(max_length=32768)] = Field(description="Its value.")


class Framework(Model):
    """How the pipeline in the image is compiled."""

    name: Annotated[str, Enforced(min_length=1, max_length=253)] = Field(description="Name of a framework of the Provider, as kfpsdk.")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="What the framework needs to know, as pipeline: module.function for kfpsdk."
    )


class PipelineSpec(Model):
    """What the pipeline is, and where it runs."""

    rules = (
        immutable("provider", "spec.provider of a Pipeline cannot be changed: create another Pipeline for the other Provider"),
        exactly_one_of(
            SOURCES,
            "exactly one of spec.pipelineSpec, spec.pipelineSpecFrom and spec.image must be set: "
            "the compiled pipeline itself, where it is kept, or the image that it is compiled in",
        ),
        Rule("has(self.image) == has(self.framework)", "spec.framework says how spec.image is compiled: set both or none", ".framework"),
        Rule("!has(self.env) || has(self.image)", "spec.env is for spec.image: it has no meaning for a compiled pipeline", ".env"),
    )

    provider: Annotated[str, Enforced(max_length=MAX_NAMESPACED_NAME, rules=(REQUIRED_NAMESPACED_NAME,))] = Field(
        description="The Provider it runs on, as namespace/name. Immutable."
    )
    pipeline_spec: dict[str, Any] | None = Field(
        None,
        description=(
            "The compiled pipeline (KFP IR, schemaVersion 2.1.0) as kfp-operator pipelines build or the KFP compiler writes it: "
            "the document itself, or pipelineSpec and platformSpec of both its documents. "
            "Above 256 kB use kubectl apply --server-side, or pipelineSpecFrom."
        ),
    )
    """The IR document, or ``{pipelineSpec, platformSpec}`` of both documents."""
    pipeline_spec_from: PipelineSource | None = Field(None, description="Where the compiled pipeline is kept, instead of pipelineSpec.")
    image: Annotated[str, Enforced(min_length=1, max_length=512)] = Field(
        "",
        description=(
            "An image that holds the pipeline's code, instead of pipelineSpec. Taken, as manifests of other operators have it, but not "
            "compiled yet: compile the code with kfp-operator pipelines build and set pipelineSpec."
        ),
    )
    framework: Framework | None = Field(None, description="How the pipeline in the image is compiled.")
    env: Annotated[list[EnvironmentVariable], keyed_by("name", 256)] = Field(
        default_factory=list, description="Variables that the code in the image sees while it is compiled."
    )
    revision_history_limit: Annotated[int, Enforced(minimum=0, maximum=100)] = Field(
        5, description="How many older versions are kept; a version that a Run refers to is kept in any case."
    )
    deletion_policy: Literal["Delete", "Orphan"] = Field(
        "Delete",
        description="What becomes of the pipeline at the backend when this is deleted: Delete removes it, Orphan leaves it.",
    )


class PipelineStatus(Status):
    """Which version runs use."""


class Pipeline(Resource):
    """A compiled Kubeflow pipeline. Runs name it; every version stays available as name:version while something refers to it."""

    spec: PipelineSpec = Field(description="What the pipeline is, and where it runs.")
    status: PipelineStatus = Field(default_factory=PipelineStatus, description="Which version runs use. Written by the operator.")
