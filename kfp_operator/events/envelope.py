"""From event data to the CloudEvent that carries it, and back with distrust.

Ids are computed from what the event is about, never drawn: whoever tells the same thing again makes the same event. Reading checks that
type, id, subject and source say what the data says, and that the message lies where such an event belongs: only then can it be
believed to be ours.

An event is at most 256 KiB, so that every broker between us and a consumer passes it on; `fit` cuts what explains, never what decides.
"""

import json
from dataclasses import dataclass
from datetime import UTC
from typing import Any
from urllib.parse import quote

from cloudevents.core.v1.event import CloudEvent
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from kfp_operator.api.states import RunState
from kfp_operator.errors import EventError
from kfp_operator.events import binding, schemas
from kfp_operator.events.bus import StoredMessage
from kfp_operator.events.subjects import Kind, Subjects
from kfp_operator.schemas import RunCompletion, RunStatus

MAX_EVENT_BYTES = 256 * 1024
STATUS_TTL = 7 * 86400.0
"""Seconds for which a run-status is kept."""
UNKNOWN_SOURCE = "kfp-operator"
"""The source of an event of a Run whose Provider was never known."""

RunEvent = RunCompletion | RunStatus


_ENVELOPE_BYTES = 4 * 1024  # what the attributes take, names of full length included


@dataclass(frozen=True, slots=True)
class Received:
    """An event that was stored and is ours."""

    event: CloudEvent
    data: RunEvent


def event_id(data: RunEvent) -> str:
    """``<uid>.<attempt>.completion`` or ``<uid>.<transition>.status``; a run without a Run object has the backend's id for the uid."""
    if isinstance(data, RunCompletion):
        return f"{data.run_uid or data.run_id}.{data.attempt}.completion"
    return f"{data.run_uid}.{data.transition}.status"


def event_type(data: RunEvent) -> str:
    """The CloudEvents type of the data."""
    return schemas.RUN_COMPLETION if isinstance(data, RunCompletion) else schemas.RUN_STATUS


def bus_subject(subjects: Subjects, data: RunEvent) -> str:
    """The NATS subject under which the event is stored."""
    if isinstance(data, RunCompletion):
        return subjects.run_completion(*_place(data), data.attempt)
    namespace, name = _split(data.run_name)
    return subjects.run_status(namespace, name, data.run_uid, data.transition)


def documented_subject(subjects: Subjects, data: RunCompletion) -> str:
    """The NATS subject of the copy for plain subscribers."""
    return subjects.documented(*_place(data), data.attempt)


def build(data: RunEvent, *, limit: int = MAX_EVENT_BYTES) -> CloudEvent:
    """The CloudEvent for the data, cut to `limit` bytes in structured mode if need be."""
    if isinstance(data, RunCompletion) and data.observed:
        _place(data)
    data = fit(data, limit - _ENVELOPE_BYTES)
    time = data.run_end_time if isinstance(data, RunCompletion) else data.time
    attributes: dict[str, Any] = {
        "id": event_id(data),
        "specversion": "1.0",
        "source": _source(data),
        "type": event_type(data),
        "subject": _about(data),
        "datacontenttype": binding.JSON_TYPE,
        "dataschema": schemas.dataschema(event_type(data)),
        "status": _status(data),
    }
    if data.provider:
        attributes["provider"] = data.provider
    if time is not None:
        attributes["time"] = time.astimezone(UTC).replace(microsecond=time.microsecond // 1000 * 1000)  # as precise as in the data
    event = CloudEvent(attributes, _document(data))
    if time is None:
        del event.get_attributes()["time"]  # the SDK put the present time there, which would differ from call to call
    return event


def read(event: CloudEvent) -> RunEvent:
    """The data of an event of ours; EventError says what contradicts what."""
    document = event.get_data()
    if not isinstance(document, dict):
        raise EventError("the event has no JSON object as data")
    data: RunEvent
    try:
        match event.get_type():
            case schemas.RUN_COMPLETION:
                data = RunCompletion.model_validate(document)
            case schemas.RUN_STATUS:
                data = RunStatus.model_validate(document)
            case other:
                raise EventError(f"type {other!r} is not one that this operator publishes about Runs")
    except ValidationError as error:
        raise EventError(f"the data is not that of {event.get_type()}: {_explain(error)}") from error
    _check_state(data)
    if isinstance(data, RunCompletion):
        _place(data)
    else:
        _split(data.run_name)
    for name, said, meant in (
        ("id", event.get_id(), event_id(data)),
        ("subject", event.get_subject(), _about(data)),
        ("source", event.get_source(), _source(data)),
        ("status", event.get_extension("status"), _status(data)),
        ("provider", event.get_extension("provider") or "", data.provider),
    ):
        if said != meant:
            raise EventError(f"attribute {name} is {said!r}, but the data says {meant!r}")
    return data


def receive(subjects: Subjects, message: StoredMessage) -> Received:
    """The event in a stored message, checked against its data and the message's subject; EventError when it is not one of ours."""
    event = binding.decode(message.headers, message.data)
    data = read(event)
    address = subjects.parse(message.subject)
    if address.kind is Kind.DOCUMENTED:
        raise EventError(f"{message.subject} holds copies, not events")
    if message.subject != (expected := bus_subject(subjects, data)):
        raise EventError(f"stored on {message.subject}, but the data belongs on {expected}")
    return Received(event, data)


def fit(data: RunEvent, limit: int) -> RunEvent:
    """The data in at most `limit` bytes of JSON: metadata goes first (largest first), then artifacts (last first), then the message.

    `truncated` says that something is missing. Raises EventError when even that is not enough.
    """
    if (size := _size(data)) <= limit:
        return data
    artifacts = list(data.artifacts)
    sizes = {index: len(_json(artifact.metadata)) for index, artifact in enumerate(artifacts) if artifact.metadata}
    size += len(b',"truncated":true')
    for index in sorted(sizes, key=lambda index: sizes[index], reverse=True):
        if size <= limit:
            break
        size -= sizes[index] - len(b"{}")
        artifacts[index] = artifacts[index].model_copy(update={"metadata": {}})
    data = data.model_copy(update={"artifacts": artifacts, "truncated": True})
    for name in ("artifacts", "serving_model_artifacts"):
        items = list(getattr(data, name, ()))
        kept = [len(_json(item.model_dump(mode="json", by_alias=True))) + 1 for item in items]
        size = _size(data)
        while items and size > limit:
            size -= kept[len(items) - 1]
            items.pop()
        if items != list(getattr(data, name, ())):
            data = data.model_copy(update={name: items})
    for name in ("message", "failed_task", "url"):
        excess = _size(data) - limit
        if excess > 0 and hasattr(data, name):
            data = data.model_copy(update={name: _shorten(getattr(data, name), excess)})
    if (size := _size(data)) > limit:
        raise EventError(f"the event of {_about(data)} takes {size} bytes without artifacts and message; {limit} are allowed")
    return data


def _shorten(text: str, excess: int) -> str:
    """Without its end: `excess` bytes of JSON less, or empty."""
    keep = len(_json(text)) - excess - len("…".encode())
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(_json(text[:middle])) <= keep else (low, middle - 1)
    return text[:low] + "…" if low else ""


def _document(data: RunEvent) -> dict[str, Any]:
    """As JSON: numbers that JSON lacks (NaN, infinity) become null, halves of surrogate pairs a question mark."""
    try:
        text = data.model_dump_json(by_alias=True)
    except PydanticSerializationError:
        clean = _scrub(data.model_dump(mode="python", by_alias=True))
        try:
            text = type(data).model_validate(clean).model_dump_json(by_alias=True)
        except PydanticSerializationError as error:
            raise EventError(f"the event of {_about(data)} cannot be written as JSON: {error}") from error
    document: dict[str, Any] = json.loads(text)
    return document


def _scrub(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case dict():
            return {_scrub(key): _scrub(member) for key, member in value.items()}
        case list() | tuple():
            return [_scrub(item) for item in value]
        case _:
            return value


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _size(data: RunEvent) -> int:
    return len(_json(_document(data)))


def _source(data: RunEvent) -> str:
    return quote(data.provider, safe="/") or UNKNOWN_SOURCE


def _status(data: RunEvent) -> str:
    return data.status if isinstance(data, RunCompletion) else data.state


def _about(data: RunEvent) -> str:
    """What the event is about: the Run, or the backend's run where there is no Run."""
    return data.run_name or data.run_id


def _place(data: RunCompletion) -> tuple[str, str, str]:
    """Namespace, name and uid in a completion's subjects. A run that others started has its Provider's, and the backend's id.

    EventError when it says neither whose it is nor who told of it.
    """
    if data.run_name or data.run_uid:
        return (*_split(data.run_name), data.run_uid)
    if not data.run_id:
        raise EventError("neither runName nor runId says what the completion is about")
    namespace, slash, name = data.provider.partition("/")
    if not (namespace and slash and name):
        raise EventError(f"provider is {data.provider!r}, not namespace/name, and there is no runName")
    return namespace, name, data.run_id


def _split(full_name: str) -> tuple[str, str]:
    namespace, slash, name = full_name.partition("/")
    if not (namespace and slash and name):
        raise EventError(f"runName is {full_name!r}, not namespace/name")
    return namespace, name


def _check_state(data: RunEvent) -> None:
    try:
        state = RunState(data.state)
    except ValueError as error:
        raise EventError(f"state {data.state!r} is not a state of a Run") from error
    if isinstance(data, RunCompletion):
        if not state.completes:
            raise EventError(f"state {data.state!r} does not end a Run with a completion")
        if (data.status == "succeeded") != (state is RunState.SUCCEEDED):
            raise EventError(f"status {data.status!r} contradicts state {data.state!r}")


def _explain(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False, include_input=False)[:5])
