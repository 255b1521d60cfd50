"""What users import: the data of every event.

Needs neither Kopf nor a Kubernetes client.
"""

from kfp_operator.schemas.data import Artifact, Cause, EventData, RunCompletion, RunStatus, ServingModelArtifact, Span, Timestamp

__all__ = ["Artifact", "Cause", "EventData", "RunCompletion", "RunStatus", "ServingModelArtifact", "Span", "Timestamp"]
