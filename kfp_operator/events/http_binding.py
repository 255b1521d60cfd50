"""CloudEvents over HTTP: the requests in which senders hand them over.

Follows "HTTP Protocol Binding for CloudEvents" 1.0.2, for events in JSON:

structured
    ``content-type: application/cloudevents+json``, the event is the body;
batched
    ``content-type: application/cloudevents-batch+json``, the body is a list of events;
binary
    headers ``ce-<name>`` are the attributes, percent-encoded, and the body is the data, ``content-type: application/json``.

Bodies are read with a parser that bounds nesting and the length of numbers itself, because anybody may have written them.
"""

from collections.abc import Iterable

from cloudevents.core.v1.event import CloudEvent
from pydantic_core import from_json

from kfp_operator.errors import EventError
from kfp_operator.events import binding

BATCH_TYPE = "application/cloudevents-batch+json"
MAX_BATCH = 100
"""Events in one request."""


class UnsupportedMedia(EventError):
    """The body is of a type that cannot be read; the message names those that can."""


def decode(headers: Iterable[tuple[str, str]], body: bytes) -> list[CloudEvent]:
    """The events in a request; one, unless it is a batch.

    Raises UnsupportedMedia, and EventError that says what is wrong, in a batch with which event.
    """
    fields: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        if key.startswith("ce-") or key == "content-type":
            if key in fields:
                raise EventError(f"header {key} is there twice")
            fields[key] = value
    media, charset = media_type(fields.get("content-type", ""))
    if charset not in ("", "utf-8", "us-ascii"):
        raise UnsupportedMedia(f"charset {charset} is not supported: JSON is UTF-8")
    if media == binding.STRUCTURED_TYPE:
        return [binding.parse_document(read_json(body))]
    if media == BATCH_TYPE:
        return _batch(body)
    if "ce-specversion" not in fields:
        raise UnsupportedMedia(
            f"not a CloudEvent: content-type is {media or 'missing'}; send {binding.STRUCTURED_TYPE}, {BATCH_TYPE}, "
            f"or {binding.JSON_TYPE} with ce- headers"
        )
    if media != binding.JSON_TYPE and not media.endswith("+json"):
        raise UnsupportedMedia(f"the data of an event must be JSON; content-type is {media or 'missing'}, not {binding.JSON_TYPE}")
    attributes = {name[3:]: binding.decode_value(value) for name, value in fields.items() if name.startswith("ce-")}
    if "datacontenttype" in attributes:
        raise EventError("header ce-datacontenttype is not allowed in binary mode: content-type says it")
    if not body:
        raise EventError("the event has no data: the body is empty")
    return [binding.parse_document({**attributes, "datacontenttype": media, "data": read_json(body)})]


def media_type(content_type: str) -> tuple[str, str]:
    """The media type of a Content-Type in lower case, and its charset, each empty when missing."""
    media, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charset = next((one.removeprefix("charset=").strip('"') for one in parameters if one.startswith("charset=")), "")
    return media, charset


def read_json(body: bytes) -> object:
    """The JSON document in bytes from anybody; EventError when it is none, holds NaN, or is nested beyond reason."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise EventError(f"the body is not JSON: {error}") from error


def _batch(body: bytes) -> list[CloudEvent]:
    documents = read_json(body)
    if not isinstance(documents, list):
        raise EventError("a batch is a JSON list of events")
    if len(documents) > MAX_BATCH:
        raise EventError(f"the batch has {len(documents)} events; {MAX_BATCH} are allowed in one request")
    events = []
    for number, document in enumerate(documents):
        try:
            events.append(binding.parse_document(document))
        except EventError as error:
            raise EventError(f"event [{number}] of the batch: {error}") from error
    return events
