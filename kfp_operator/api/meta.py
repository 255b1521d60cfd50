"""What every resource has: metadata, spec, status, conditions. Parsed from what the API server sends, unknown members ignored.

Models are frozen: a new status is a copy. JSON names are camelCase (`to_json` writes them), Python names snake_case.
The CRDs are generated from these models, so every field says what it is for (``kubectl explain``) and how large it may be.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, GetJsonSchemaHandler, PlainSerializer, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from kfp_operator.api.schema import DNS_LABEL, DNS_SUBDOMAIN, MAX_NAMESPACED_NAME, MAX_VERSION, Enforced, Rule, keyed_by, matches
from kfp_operator.api.states import SyncState


def _seconds(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micros(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


Time = Annotated[AwareDatetime, PlainSerializer(_seconds, when_used="json")]
"""metav1.Time: whole seconds, UTC."""
MicroTime = Annotated[AwareDatetime, PlainSerializer(_micros, when_used="json")]
"""metav1.MicroTime: microseconds, UTC."""
NAMESPACED_NAME = matches(
    f"{DNS_LABEL}/{DNS_SUBDOMAIN}", 'must be "namespace/name" of a Provider, in lower case, as mlops/local', or_empty=True
)
REQUIRED_NAMESPACED_NAME = matches(f"{DNS_LABEL}/{DNS_SUBDOMAIN}", 'must be "namespace/name" of a Provider, in lower case, as mlops/local')
Text = Annotated[str, Enforced(max_length=32768)]
"""A message for people."""


class Model(BaseModel):
    """Base of everything in a resource."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)
    rules: ClassVar[Sequence[Rule]] = ()
    """CEL rules that the API server checks on this object."""
    exclusive: ClassVar[Sequence[str]] = ()
    """Fields (JSON names) that are not set together. For what CEL cannot see, which is any JSON; else a rule has a better message."""

    def to_json(self) -> dict[str, Any]:
        """As the API server stores it: camelCase, absent members left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = dict(handler.resolve_ref_schema(handler(core_schema)))
        if cls.exclusive:
            schema["not"] = {"required": list(cls.exclusive)}
        if cls.rules:
            schema["x-kubernetes-validations"] = [rule.to_json() for rule in cls.rules]
        return schema


class OwnerReference(Model):
    """metav1.OwnerReference."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class Metadata(Model):
    """The part of ObjectMeta that decisions look at."""

    name: str
    namespace: str
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)
    owner_references: list[OwnerReference] = Field(default_factory=list)

    @property
    def full_name(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"


class Condition(Model):
    """One observation about the object, in the form all of Kubernetes uses (KEP-1623)."""

    type: Annotated[str, Enforced(max_length=316, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")] = Field(
        description="Name of the condition, as Ready."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: Annotated[str, Enforced(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")] = Field(
        description="CamelCase word for the cause, for programs."
    )
    message: Text = Field("", description="The cause, for people.")
    last_transition_time: Time = Field(description="When the condition's status changed last.")
    observed_generation: Annotated[int, Enforced(minimum=0)] = Field(0, description="The metadata.generation this was observed at.")


class Status(Model):
    """What the status of every kind has."""

    synchronization_state: SyncState | None = Field(
        None, description="Where the object is on its way to the backend; the reason of condition Synchronized."
    )
    provider: Annotated[str, Enforced(max_length=MAX_NAMESPACED_NAME)] = Field(
        "", description="The Provider this was synchronized with, as namespace/name."
    )
    provider_id: Annotated[str, Enforced(max_length=1024)] = Field("", description="The backend's id of this object.")
    version: Annotated[str, Enforced(max_length=MAX_VERSION)] = Field("", description="Hash of the spec that was synchronized.")
    observed_generation: Annotated[int, Enforced(minimum=0)] = Field(
        0, description="The metadata.generation this status is about; when it is lower than that, the status is about an older spec."
    )
    conditions: Annotated[list[Condition], keyed_by("type", 32)] = Field(
        default_factory=list, description="Observations in the form all of Kubernetes uses; kubectl wait --for=condition=TYPE."
    )
    message: Text = Field("", description="Why the object waits or failed; empty when there is nothing to say.")

    @property
    def in_go_form(self) -> bool:
        """Whether the Go operator wrote it: it has no synchronizationState, which ours have whenever they have conditions."""
        return self.synchronization_state is None and bool(self.conditions)

    @model_validator(mode="before")
    @classmethod
    def _read_go_operator(cls, data: Any) -> Any:
        """The Go operator's status has ``provider: {name, id}``."""
        if not (isinstance(data, dict) and isinstance(old := data.get("provider"), dict)):
            return data
        return {**data, "provider": old.get("name", ""), "providerId": data.get("providerId") or old.get("id", "")}


class Resource(Model):
    """Any of our kinds."""

    metadata: Metadata

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Self:
        """From the API server's JSON; ValidationError when it is not of this kind."""
        return cls.model_validate(body)
