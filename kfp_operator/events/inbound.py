"""Events that come from outside: which are accepted, where they are stored, and how their consumer reads them.

A commit was pushed, an image was published, an alert fires: such an event is a CloudEvent of type ``org.kubeflow.pipelines.event`` whose
data names its `kind`, what it is about (`ref`) and whatever else there is to tell. It is stored under
``<prefix>.inbound.<namespace>.<kind>.<digest>``. The digest is made of the event's source and id, which CloudEvents declares to be what
makes two events one, and the subject is published to only while it is empty: who sends an event again finds it stored.

Who may publish for a namespace is decided by whoever lets it in, the token over HTTP or NATS' permissions on the subject; so the namespace
is never taken from the data. What only the operator can know (states of runs, approvals, new artifacts) is refused on every way in, and
again by `receive`, because anybody with the right to publish may have put anything there.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cloudevents.core.v1.event import CloudEvent
from pydantic import ValidationError

from kfp_operator.errors import EventError, EventRefused, WrongLastSequence
from kfp_operator.events import binding, schemas
from kfp_operator.events.bus import Bus, StoredMessage
from kfp_operator.events.subjects import Subjects
from kfp_operator.schemas import InboundEvent, V1EventKind
from kfp_operator.schemas.inbound import MAX_INBOUND_BYTES
from kfp_operator.schemas.kinds import INITIALIZING

MAX_ATTRIBUTES_BYTES = 8 * 1024
MAX_EVENT_BYTES = 2 * (MAX_INBOUND_BYTES + MAX_ATTRIBUTES_BYTES)
"""Of a message on the bus: others may write JSON with white space and escapes."""
MAX_DEPTH = 32
"""Levels of objects and lists within data."""

KINDS = tuple(kind for kind in V1EventKind if not kind.internal)
"""The kinds that may come from outside."""

_ACCEPTED = [kind.value for kind in KINDS]
_INTERNAL = frozenset(kind.value for kind in V1EventKind if kind.internal) | {INITIALIZING}
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class TooLarge(EventRefused):
    """The event is larger than may be stored."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """An event from outside that is accepted. `event` is what is stored, with `ref` bare."""

    namespace: str
    data: InboundEvent
    event: CloudEvent

    @property
    def source(self) -> str:
        """Where it comes from, as its publisher says."""
        return self.event.get_source()

    @property
    def id(self) -> str:
        """Unique within the source."""
        return self.event.get_id()


@dataclass(frozen=True, slots=True)
class Stored:
    """The event is in the stream."""

    subject: str
    already: bool
    """Whether an event of the same source and id was there before."""
    sequence: int | None
    """Of the message; None when it was there before."""


def digest(source: str, id_: str) -> str:
    """The last token of the subject: the first 32 hex digits of SHA-256 over source, a NUL and id, in UTF-8."""
    return hashlib.sha256(f"{source}\0{id_}".encode()).hexdigest()[:32]


def make(
    namespace: str, kind: V1EventKind, ref: str, payload: Mapping[str, Any], *, source: str, id_: str, time: datetime | None = None
) -> Inbound:
    """The event that tells this.

    `time`: when it happened (aware). Raises EventRefused for what `admit` would not accept.
    """
    attributes: dict[str, Any] = {"id": id_, "specversion": "1.0", "source": source, "type": schemas.INBOUND}
    if time is not None:
        attributes["time"] = binding.rfc3339(time.astimezone(UTC))
    try:
        event = binding.parse_document({**attributes, "data": {**payload, "ref": ref, "kind": kind.value}})
    except EventError as error:
        raise EventRefused(str(error)) from error
    return admit(event, namespace)


def admit(event: CloudEvent, namespace: str) -> Inbound:
    """The event as it is stored for `namespace`. EventRefused says what is not accepted, and what would be."""
    if not _NAMESPACE.fullmatch(namespace):
        raise EventRefused(f"{namespace!r} is not the name of a namespace")
    if event.get_type() != schemas.INBOUND:
        raise EventRefused(f"type is {event.get_type()!r}: events from outside have type {schemas.INBOUND}")
    document = event.get_data()
    if not isinstance(document, dict):
        raise EventRefused("data is not a JSON object with members ref and kind")
    if _deeper(document, MAX_DEPTH):
        raise EventRefused(f"data has more than {MAX_DEPTH} levels of objects and lists")
    _check_size("data", document, MAX_INBOUND_BYTES)
    data = _read(document)
    attributes = {name: value for name, value in event.get_attributes().items() if value is not None}
    attributes |= {"datacontenttype": binding.JSON_TYPE, "dataschema": schemas.dataschema(schemas.INBOUND)}
    attributes.setdefault("subject", data.ref)
    document = {**document, "ref": data.ref, "kind": data.kind.value}
    _check_size("the event without its data", attributes, MAX_ATTRIBUTES_BYTES)
    admitted = CloudEvent(dict(attributes), document)
    if "time" not in attributes:
        del admitted.get_attributes()["time"]  # the SDK put the present time there, which would differ from call to call
    return Inbound(namespace, data, admitted)


def subject(subjects: Subjects, inbound: Inbound) -> str:
    """Where the event is stored."""
    return subjects.inbound(inbound.namespace, inbound.data.kind.value, digest(inbound.source, inbound.id))


async def store(bus: Bus, subjects: Subjects, inbound: Inbound) -> Stored:
    """Store the event, unless one of its source and id is stored.

    What is there already is not looked at: only who may publish for the namespace can have put it there.
    Raises BusUnavailable (send it again: it is stored once), StreamMissing, BusError.
    """
    where = subject(subjects, inbound)
    wire = binding.encode(inbound.event)
    try:
        sequence = await bus.publish(where, wire.body, wire.headers, stream=subjects.stream("inbound"), expected_last=0)
    except WrongLastSequence:
        return Stored(where, True, None)
    return Stored(where, False, sequence)


def receive(subjects: Subjects, message: StoredMessage) -> Inbound:
    """The event in a message of the inbound stream, whoever published it; EventError when it cannot be accepted."""
    address = subjects.parse_inbound(message.subject)
    if len(message.data) > MAX_EVENT_BYTES:
        raise TooLarge(f"the message has {len(message.data)} bytes; {MAX_EVENT_BYTES} are allowed")
    inbound = admit(binding.decode(message.headers, message.data), address.namespace)
    if inbound.data.kind.value != address.kind:
        raise EventRefused(f"the subject says {address.kind!r}, the data says {inbound.data.kind.value!r}")
    if address.digest and address.digest != digest(inbound.source, inbound.id):
        raise EventRefused("the last token of the subject is not the digest of source and id")
    return inbound


def _read(document: Mapping[str, Any]) -> InboundEvent:
    kind = document.get("kind")
    if kind not in _ACCEPTED:
        why = "is told by the operator alone" if str(kind) in _INTERNAL else "is no kind of event"
        said = f"{str(kind)[:100]!r} {why}; " if kind is not None else "is missing; "
        raise EventRefused(f"data.kind {said}from outside come {', '.join(_ACCEPTED)}")
    try:
        return InboundEvent.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        problems = [f"{'.'.join(['data', *map(str, one['loc'])])}: {one['msg'].removeprefix('Value error, ')}" for one in found]
        raise EventRefused("; ".join(problems[:5])) from error


def _check_size(what: str, document: Mapping[str, Any], limit: int) -> None:
    """Refuse what takes more bytes of JSON, or cannot be written as JSON in UTF-8."""
    try:
        size = len(json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str).encode())
    except (ValueError, UnicodeEncodeError) as error:
        raise EventRefused(f"{what} cannot be written as JSON: {error}") from error
    if size > limit:
        raise TooLarge(f"{what} takes {size} bytes of JSON; {limit} are allowed")


def _deeper(value: object, levels: int) -> bool:
    """Whether there are more levels of objects and lists; without recursion, because that is what is being limited."""
    containers = [value]
    for _ in range(levels):
        containers = [
            child
            for one in containers
            for child in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
            if isinstance(child, dict | list)
        ]
        if not containers:
            return False
    return True
