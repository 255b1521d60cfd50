"""Storing every event exactly once, with nothing to remember.

An event's subject is a slot that is published to only if it is empty. "Wrong last sequence" says that something is there already; it is
read back and is one of three things: the very event (stored by an earlier try whose answer was lost, or by another process), another
state in the slot of a status (the caller goes on with the next number), or bytes that are no event of ours. Those are moved to the dead
letters, where nothing is lost, and make room.

Pure over `Bus`: an outage raises BusUnavailable, and the caller tries again; so does StreamMissing, until the stream is made.
"""

import logging
import re
from dataclasses import dataclass

from cloudevents.core.v1.event import CloudEvent

from kfp_operator.errors import BusError, EventError, WrongLastSequence
from kfp_operator.events import binding, envelope
from kfp_operator.events.bus import Bus, StoredMessage
from kfp_operator.events.envelope import RunEvent
from kfp_operator.events.subjects import Subjects
from kfp_operator.schemas import RunCompletion, RunStatus

_log = logging.getLogger(__name__)

_ATTEMPTS = 5
_DEAD_LETTER_BYTES = 512 * 1024  # with its headers well below NATS' default max_payload of 1 MiB
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 7230 token

MESSAGE_ID_HEADER = "Nats-Msg-Id"
REASON_HEADER = "kfp-operator-reason"
SUBJECT_HEADER = "kfp-operator-subject"
TIME_HEADER = "kfp-operator-time"
TRUNCATED_HEADER = "kfp-operator-truncated"


@dataclass(frozen=True, slots=True)
class Stored:
    """The event is in the stream."""

    sequence: int
    already: bool
    """Whether it was there before this call."""
    data: RunEvent
    """What the stream says: the first version of a completion stands."""
    displaced: int = 0
    """How many foreign messages were moved to the dead letters to make room."""


@dataclass(frozen=True, slots=True)
class SlotTaken:
    """Another change of state has the number: take the next one."""

    sequence: int
    by: RunStatus


async def store(bus: Bus, subjects: Subjects, data: RunEvent) -> Stored | SlotTaken:
    """Store the event of `data`, unless it is stored.

    Raises BusUnavailable (try again, the outcome is looked up), StreamMissing, BusError, and EventError for data that no event can hold.
    """
    stream = subjects.stream("runs")
    subject = envelope.bus_subject(subjects, data)
    wire = binding.encode(envelope.build(data))
    ttl = envelope.STATUS_TTL if isinstance(data, RunStatus) else None
    displaced = 0
    for _ in range(_ATTEMPTS):
        try:
            sequence = await bus.publish(subject, wire.body, wire.headers, stream=stream, expected_last=0, ttl=ttl)
        except WrongLastSequence:
            found = await bus.last(stream, subject)
        else:
            return Stored(sequence, False, data, displaced)
        if found is None:  # it expired or was deleted in between
            continue
        try:
            there = envelope.receive(subjects, found).data
        except EventError as error:
            _log.warning("%s holds no event of this operator (%s): moved to the dead letters, the event takes its place", subject, error)
            await _displace(bus, subjects, found, f"in the place of an event of {data.run_name}: {error}")
            displaced += 1
            continue
        if isinstance(there, RunStatus) and isinstance(data, RunStatus) and (there.attempt, there.state) != (data.attempt, data.state):
            return SlotTaken(found.sequence, there)
        return Stored(found.sequence, True, there, displaced)
    raise _taken(subject)


async def newest(bus: Bus, subjects: Subjects, subject: str) -> RunEvent | None:
    """The newest event of ours on the subject (wildcards allowed). What lies on top of it and is none is moved to the dead letters."""
    stream = subjects.stream("runs")
    for _ in range(_ATTEMPTS):
        found = await bus.last(stream, subject)
        if found is None:
            return None
        try:
            return envelope.receive(subjects, found).data
        except EventError as error:
            await _displace(bus, subjects, found, f"among the events of a Run: {error}")
    raise _taken(subject)


async def dead_letter(bus: Bus, subjects: Subjects, message: StoredMessage, reason: str) -> None:
    """Keep a message that nobody can understand, with the reason in header `kfp-operator-reason`; once, however often it is called.

    A body over 512 KiB is cut, and header `kfp-operator-truncated` says so.
    """
    subject = subjects.dead_letter(message.stream, message.sequence)
    headers = {
        name: value
        for name, value in message.headers.items()
        if _HEADER_NAME.fullmatch(name) and not name.lower().startswith("nats-")  # those would be instructions to the server
    }
    headers |= {
        REASON_HEADER: binding.encode_value(reason[:1000]),
        SUBJECT_HEADER: binding.encode_value(message.subject),
        TIME_HEADER: binding.rfc3339(message.time),
    }
    body = message.data[:_DEAD_LETTER_BYTES]
    if len(body) < len(message.data):
        headers[TRUNCATED_HEADER] = "true"
    stream = subjects.stream("dead-letter")
    try:
        await bus.publish(subject, body, headers, stream=stream, expected_last=0)
    except WrongLastSequence:
        there = await bus.last(stream, subject)
        if there is None or there.data != body:  # sequences began anew with the stream: the subject is another message's
            await bus.publish(subject, body, headers, stream=stream)


async def publish_documented(bus: Bus, subjects: Subjects, event: CloudEvent, mode: binding.ContentMode = "compatible") -> bool:
    """Store the copy of a completion that plain subscribers get; False when it was stored before.

    Only for completions stored within the replay window: the copy is forgotten after it, and would be delivered anew. What is delivered
    bears the headers of what is stored. A condition among them would bind any stream that somebody keeps of the documented subject (it
    would take the first event and refuse all others), so the copy is looked for instead; the message id guards the moment between.
    """
    data = envelope.read(event)
    if not isinstance(data, RunCompletion):
        raise EventError(f"{event.get_type()} is not a completion")
    wire = binding.encode(event, mode)
    subject, stream = envelope.documented_subject(subjects, data), subjects.stream("documented")
    if await bus.last(stream, subject) is not None:
        return False
    await bus.publish(subject, wire.body, {**wire.headers, MESSAGE_ID_HEADER: envelope.event_id(data)}, stream=stream, delivered=True)
    return True


async def _displace(bus: Bus, subjects: Subjects, message: StoredMessage, reason: str) -> None:
    await dead_letter(bus, subjects, message, reason)
    await bus.delete(message.stream, message.sequence)


def _taken(subject: str) -> BusError:
    return BusError(f"{subject} is taken again and again by messages that are not events of this operator: who else may publish there?")
