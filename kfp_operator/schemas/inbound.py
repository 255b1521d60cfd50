"""What others tell the operator: a commit, a new image, an alert, with whatever else they have to say about it."""

import json
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from kfp_operator.schemas.data import EventData
from kfp_operator.schemas.kinds import V1EventKind
from kfp_operator.schemas.references import MAX_REFERENCE, Reference, parse_reference

MAX_INBOUND_BYTES = 64 * 1024
"""Bytes of the data as compact JSON."""

InboundKind = Literal[
    V1EventKind.CONNECTION_GIT_COMMIT,
    V1EventKind.CONNECTION_DATASET_VERSION,
    V1EventKind.CONNECTION_REGISTRY_IMAGE,
    V1EventKind.ALERT_INFO,
    V1EventKind.ALERT_WARNING,
    V1EventKind.ALERT_CRITICAL,
    V1EventKind.MODEL_VERSION_NEW_METRIC,
    V1EventKind.PROJECT_CUSTOM_EVENT,
    V1EventKind.ORG_CUSTOM_EVENT,
]
"""The kinds that come from outside."""


class InboundEvent(EventData):
    """Data of org.kubeflow.pipelines.event: something happened outside. Any further members are kept and can be used by triggers."""

    model_config = ConfigDict(extra="allow")

    ref: str = Field(
        max_length=MAX_REFERENCE,
        description="What it happened to: connections.NAME, alerts.NAME, models.NAME, projects.NAME or orgs.NAME, as the kind demands.",
    )
    kind: InboundKind = Field(description="What happened. Kinds of runs are told by the operator alone.")

    @field_validator("ref")
    @classmethod
    def _bare(cls, text: str) -> str:
        return str(parse_reference(text))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.reference.check_kinds([self.kind])
        size = len(json.dumps(self.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))
        if size > MAX_INBOUND_BYTES:
            raise ValueError(f"the data takes {size} bytes; {MAX_INBOUND_BYTES} are allowed")
        return self

    @property
    def reference(self) -> Reference:
        """What it happened to."""
        return parse_reference(self.ref)

    @property
    def payload(self) -> dict[str, Any]:
        """The further members."""
        return dict(self.model_extra or {})
