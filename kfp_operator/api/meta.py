"""What every resource has: metadata, spec, status, conditions. Parsed from what the API server sends, unknown members ignored.

Models are frozen: a new status is a copy. JSON names are camelCase (`to_json` writes them), Python names snake_case.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel


def _seconds(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


def _micros(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


Time = Annotated[AwareDatetime, PlainSerializer(_seconds, when_used="json")]
"""metav1.Time: whole seconds, UTC."""
MicroTime = Annotated[AwareDatetime, PlainSerializer(_micros, when_used="json")]
"""metav1.MicroTime: microseconds, UTC."""


class Model(BaseModel):
    """Base of everything in a resource."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    def to_json(self) -> dict[str, Any]:
        """As the API server stores it: camelCase, absent members left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class OwnerReference(Model):
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
        return f"{self.namespace}/{self.name}"


class Condition(Model):
    """metav1.Condition (KEP-1623)."""

    type: str = Field(description="Name of the condition.", max_length=316)
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: str = Field(description="CamelCase word for the cause.", max_length=1024)
    message: str = Field("", description="The cause for people.", max_length=32768)
    last_transition_time: Time = Field(description="When status changed last.")
    observed_generation: int = Field(0, description="metadata.generation this was set for.", ge=0)


class Resource(Model):
    """Any of our kinds."""

    metadata: Metadata

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Self:
        """From the API server's JSON; ValidationError when it is not of this kind."""
        return cls.model_validate(body)
