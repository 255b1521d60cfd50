"""JSON Schemas of event data, generated from the models that build it, so that they cannot differ.

Each has a URN as its `$id`, which is the event's `dataschema`: ``urn:kfp-operator:<event>:v1``. The number changes only when a consumer
of the old data could break; within one number members are added, and a schema allows members it does not know.
"""

from typing import Any

from kfp_operator.errors import ConfigurationError
from kfp_operator.schemas import DagCompletion, DagStatus, EventData, InboundEvent, RunCompletion, RunStatus

TYPE_PREFIX = "org.kubeflow.pipelines."
RUN_COMPLETION = TYPE_PREFIX + "run-completion"
RUN_STATUS = TYPE_PREFIX + "run-status"

DAG_COMPLETION = TYPE_PREFIX + "dag-completion"
DAG_STATUS = TYPE_PREFIX + "dag-status"
INBOUND = TYPE_PREFIX + "event"

DATA_MODELS: dict[str, type[EventData]] = {
    RUN_COMPLETION: RunCompletion,
    RUN_STATUS: RunStatus,
    DAG_COMPLETION: DagCompletion,
    DAG_STATUS: DagStatus,
    INBOUND: InboundEvent,
}
"""The model of each event type's data."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def short_name(event_type: str) -> str:
    """``run-completion`` for ``org.kubeflow.pipelines.run-completion``."""
    return event_type.removeprefix(TYPE_PREFIX)


def dataschema(event_type: str) -> str:
    """The URN of the schema of an event type's data."""
    return f"urn:kfp-operator:{short_name(event_type)}:v1"


def schema(event: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of an event's data, by event type or its short name.

    Raises ConfigurationError, which names the known ones, for any other.
    """
    event_type = TYPE_PREFIX + short_name(event)
    model = DATA_MODELS.get(event_type)
    if model is None:
        raise ConfigurationError(f"no event {event!r}; there are: {', '.join(map(short_name, DATA_MODELS))}")
    return {"$schema": _DIALECT, "$id": dataschema(event_type), **model.model_json_schema(by_alias=True, mode="validation")}


def schemas() -> dict[str, dict[str, Any]]:
    """All schemas, by event type."""
    return {event_type: schema(event_type) for event_type in DATA_MODELS}
