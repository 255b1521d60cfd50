"""CloudEvents on NATS: the protocol binding, which the CloudEvents SDK does not have.

Follows "NATS Protocol Binding for CloudEvents" 1.0.3-wip. Two content modes, and a third that is a use of the second:

structured
    the whole event is one JSON document; headers say ``content-type: application/cloudevents+json`` and nothing else. Never a
    ``ce-`` header there: SDKs take ``ce-specversion`` as proof of binary mode and would hand the whole document on as data.
binary
    attributes are headers ``ce-<name>``, percent-encoded; the body is the data.
compatible
    valid binary mode whose data is the event's JSON document with the members of `data` repeated at top level. A consumer that
    looks only at the body finds both ``status`` and ``data.status``, the two spellings in use for the documented subject.

Everything that is not a CloudEvent raises EventError, whatever the bytes are.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn
from urllib.parse import quote, unquote_to_bytes

from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from kfp_operator.errors import EventError

ContentMode = Literal["structured", "binary", "compatible"]

STRUCTURED_TYPE = "application/cloudevents+json"
JSON_TYPE = "application/json"

_SAFE = "".join(c for c in map(chr, range(0x21, 0x7F)) if c not in '"%')  # section 3.1.3.2
_JSON_MEDIA = re.compile(r"\s*[a-z]+/(?:[a-z0-9.-]+\+)?json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_TEXT_MEDIA = re.compile(r"\s*text/.*", re.IGNORECASE | re.DOTALL)
_ATTRIBUTE = re.compile(r"[a-z0-9]+")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # spec.md, type system: not allowed in a String
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)  # RFC 7230, 3.2.6


@dataclass(frozen=True, slots=True)
class Wire:
    """An event as NATS carries it. Header names are lower-case: many clients look them up by exact spelling."""

    headers: dict[str, str]
    body: bytes


def encode(event: CloudEvent, mode: ContentMode = "structured") -> Wire:
    """The message for an event."""
    match mode:
        case "structured":
            return Wire({"content-type": STRUCTURED_TYPE}, _dump(_document(event)))
        case "binary":
            content_type = event.get_datacontenttype()
            headers = _attribute_headers(event) | ({"content-type": content_type} if content_type else {})
            return Wire(headers, _data_bytes(event))
        case "compatible":
            document = _document(event)
            data = document.get("data")
            headers = _attribute_headers(event) | {"ce-datacontenttype": JSON_TYPE, "content-type": JSON_TYPE}
            # The envelope wins: the document stays the event that it is.
            return Wire(headers, _dump((data if isinstance(data, dict) else {}) | document))


def decode(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """The event in a message of either content mode; EventError says what is wrong with any other bytes.

    A message without headers is read as structured: that is what senders from before NATS had headers publish.
    """
    lower: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()  # section 3.1.3.1: names are case-insensitive
        if key in lower and (key.startswith("ce-") or key == "content-type"):
            raise EventError(f"header {key} is there twice")
        lower[key] = str(value)
    media = lower.get("content-type", "").strip().lower()
    if media.startswith("application/cloudevents"):
        if media.partition(";")[0].strip() != STRUCTURED_TYPE:
            raise EventError(f"content-type {media!r} is not supported, only {STRUCTURED_TYPE} is")
        return parse_document(_load(body, "the body"))
    if any(name.startswith("ce-") for name in lower):
        return _from_headers(lower, body)
    if media:
        raise EventError(f"not a CloudEvent: no ce- headers, and content-type {media!r} is not {STRUCTURED_TYPE}")
    return parse_document(_load(body, "the body"))


def encode_value(value: object) -> str:
    """An attribute's canonical string, percent-encoded for a header (section 3.1.3.2)."""
    return quote(_canonical(value), safe=_SAFE)


def decode_value(value: str) -> str:
    """The string in a header: quotes undone, then one round of percent-decoding; EventError when it is not UTF-8."""
    if "\ufffd" in value:  # nats-py puts it where a raw byte was not UTF-8
        raise EventError(f"header value {value!r} is not UTF-8")
    stripped = value.strip()
    if stripped.startswith('"') and _QUOTED.fullmatch(stripped):
        stripped = re.sub(r"\\(.)", r"\1", stripped[1:-1], flags=re.DOTALL)
    try:
        return unquote_to_bytes(stripped).decode("utf-8")
    except UnicodeError as error:
        raise EventError(f"header value {value!r} is not UTF-8 when percent-decoded") from error


def _canonical(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case datetime():
            return rfc3339(value)
        case _:
            return str(value)


def rfc3339(value: datetime) -> str:
    """An aware time in UTC, with ``Z``."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _attribute_headers(event: CloudEvent) -> dict[str, str]:
    return {f"ce-{name}": encode_value(value) for name, value in event.get_attributes().items() if value is not None}


def _data_bytes(event: CloudEvent) -> bytes:
    data: object = event.get_data()
    match data:
        case None:
            return b""
        case bytes():
            return data
        case str() if not _is_json(event.get_datacontenttype()):
            return data.encode()
        case _:
            return _dump(data)


def _document(event: CloudEvent) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(JSONFormat().write(event))
    return document


def _dump(document: object) -> bytes:
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, UnicodeEncodeError) as error:
        raise EventError(f"the event cannot be written as JSON: {error}") from error


def _is_json(content_type: str | None) -> bool:
    """JSON is what an event without datacontenttype carries in JSON format; so it is assumed in binary mode."""
    return content_type is None or _JSON_MEDIA.fullmatch(content_type) is not None


def parse_document(document: object) -> CloudEvent:
    """The event in a JSON document of structured mode, read already; EventError as `decode`."""
    if not isinstance(document, dict):
        raise EventError("not a CloudEvent: the body is not a JSON object")
    attributes = {name: value for name, value in document.items() if name not in ("data", "data_base64") and value is not None}
    data = document.get("data")
    encoded = document.get("data_base64")
    if encoded is not None:
        if data is not None:
            raise EventError("the event has both data and data_base64")
        try:
            data = base64.b64decode(encoded, validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise EventError(f"data_base64 is not base64: {error}") from error
    return _build(attributes, data)


def _from_headers(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    attributes: dict[str, Any] = {name[3:]: decode_value(value) for name, value in headers.items() if name.startswith("ce-")}
    if "content-type" in headers:
        attributes.setdefault("datacontenttype", headers["content-type"])
    content_type = attributes.get("datacontenttype")
    data: Any = body or None
    if body and _is_json(content_type):
        data = _load(body, "the data")
    elif body and content_type and _TEXT_MEDIA.fullmatch(content_type):
        try:
            data = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise EventError(f"the data is not UTF-8 text: {error}") from error
    return _build(attributes, data)


def _load(body: bytes, what: str) -> Any:
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise EventError(f"{what} is not JSON: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _build(attributes: dict[str, Any], data: Any) -> CloudEvent:
    for name, value in attributes.items():
        if not _ATTRIBUTE.fullmatch(name):
            raise EventError(f"attribute name {name!r} is not lower-case letters and digits")
        if not isinstance(value, str | bool | int):
            raise EventError(f"attribute {name} is {type(value).__name__}, not a string, boolean or integer")
        if isinstance(value, str) and _CONTROL.search(value):
            raise EventError(f"attribute {name} holds a control character")
    if attributes.get("specversion") != "1.0":
        raise EventError(f"not a CloudEvent 1.0: specversion is {attributes.get('specversion')!r}")
    for name in ("id", "source", "type"):
        if not isinstance(attributes.get(name), str) or not attributes[name]:
            raise EventError(f"not a CloudEvent: attribute {name} is missing, empty or not a string")
    timeless = "time" not in attributes
    if not timeless:
        attributes = {**attributes, "time": _parse_time(attributes["time"])}
    try:
        event = CloudEvent(attributes, data)
    except CloudEventValidationError as error:
        reasons = "; ".join(str(one) for several in error.errors.values() for one in several)
        raise EventError(f"not a CloudEvent: {reasons}") from error
    if timeless:
        del event.get_attributes()["time"]  # the SDK put the present time there
    return event


def _parse_time(value: object) -> datetime:
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise EventError(f"attribute time is {value!r}, not an RFC 3339 time")
    try:
        return datetime.fromisoformat(value.upper())
    except ValueError as error:
        raise EventError(f"attribute time is {value!r}: {error}") from error
