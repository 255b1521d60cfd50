"""What users import: event triggers, and the data of every event.

Needs neither Kopf nor a Kubernetes client.
"""

from kfp_operator.schemas.dag import DagCompletion, DagStatus, OperationState
from kfp_operator.schemas.data import Artifact, Cause, EventData, RunCompletion, RunStatus, ServingModelArtifact, Span, Timestamp
from kfp_operator.schemas.inbound import InboundEvent
from kfp_operator.schemas.kinds import V1EventKind
from kfp_operator.schemas.references import Reference, RefType, parse_reference
from kfp_operator.schemas.trigger import V1EventTrigger

__all__ = [
    "Artifact",
    "Cause",
    "DagCompletion",
    "DagStatus",
    "EventData",
    "InboundEvent",
    "OperationState",
    "RefType",
    "Reference",
    "RunCompletion",
    "RunStatus",
    "ServingModelArtifact",
    "Span",
    "Timestamp",
    "V1EventKind",
    "V1EventTrigger",
    "parse_reference",
]
