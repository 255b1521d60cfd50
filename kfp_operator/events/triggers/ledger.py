"""What one object remembers of its triggers, so that each occurrence is acted upon once, whatever is told twice, late or after a kill.

An event is recorded here, here becomes status, and only then is the event acknowledged; so an event that was lost on the way comes again.
What comes again is known by its subject: `handled` holds a hash of each, from when it is recorded. An attempt of a run is told many
times, so its hash stays at least until the attempt has ended and the bus will not deliver that end again (`worked_off`). Hashes of events
from outside stay as long as there is room, because others may send one again at any time.

State is bounded: `MAX_PENDING` occurrences wait, those beyond start nothing and are counted; of more than `MAX_HANDLED` hashes, those whose
subject has ended go first, oldest first. A Run that is made twice all the same has one name, made of the occurrence.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from kfp_operator.api.event_trigger import MAX_HANDLED, MAX_PENDING, EventsStatus, EventTriggerStatus, PendingOccurrence, StreamPosition
from kfp_operator.events.triggers.happening import Position
from kfp_operator.events.triggers.subscriptions import Occurrence, Subscription
from kfp_operator.schemas import V1EventKind
from kfp_operator.schemas.trigger import computed_name


class Recorded(StrEnum):
    """What became of an occurrence."""

    PENDING = "pending"
    """It waits to be acted upon."""
    KNOWN = "known"
    """It was recorded before."""
    BEFORE = "before"
    """It happened before the trigger was there."""
    OVERFLOW = "overflow"
    """Too many wait: it starts nothing."""
    STRANGER = "stranger"
    """There is no such trigger any more."""


@dataclass(slots=True)
class _Mark:
    """That a subject was acted upon. `ended`: the sequence of its last event; None: more may come."""

    ended: int | None = None
    replayed: bool = True
    """Whether only the bus can tell it again, which it does not once it was worked off. Others may send an event again."""


class Ledger:
    """The triggers of one object."""

    def __init__(self, status: EventsStatus | None = None) -> None:
        """As its status remembers it; None: it is new."""
        stored = status or EventsStatus()
        self._triggers = {one.name: one for one in stored.triggers}
        self._pending = {_key(one.trigger, one.subject): _occurrence(one) for one in stored.pending}
        self._handled = dict(map(_read_mark, stored.handled))
        self._floors = {one.stream: one for one in map(_position, stored.floors)}

    def status(self) -> EventsStatus:
        """As it is to be stored."""
        return EventsStatus(
            triggers=list(self._triggers.values()),
            pending=[_pending(one) for one in self._pending.values()],
            handled=[_write_mark(key, mark) for key, mark in self._handled.items()],
            floors=[_stored(one) for one in self._floors.values()],
        )

    @property
    def pending(self) -> list[Occurrence]:
        """What is to be acted upon, oldest first."""
        return list(self._pending.values())

    def follow(
        self, subscriptions: Sequence[Subscription], heads: Iterable[Position], latest: Mapping[str, Occurrence] | None = None
    ) -> None:
        """Take over the object's triggers as they are now.

        A trigger that is new, or waits for something else than before, begins at `heads`, the ends of the streams: what happened earlier
        starts nothing, and what waited for its sake is passed over. `latest`: by name, what happened last before, of triggers that want
        it (startFrom: Latest).
        """
        since = [_stored(head) for head in heads]
        before, self._triggers = self._triggers, {}
        for one in subscriptions:
            spec = computed_name(one.trigger)
            known = before.get(one.name)
            if known is not None and known.spec == spec:
                self._triggers[one.name] = known
                continue
            self._triggers[one.name] = (known or EventTriggerStatus(name=one.name)).model_copy(update={"spec": spec, "since": since})
            self._pass_over(one.name, "what it waits for was changed")
            if one.trigger.start_from == "Latest" and (last := (latest or {}).get(one.name)) is not None:
                self._take(last)
        self._pending = {key: one for key, one in self._pending.items() if one.trigger in self._triggers}

    def record(self, occurrence: Occurrence) -> Recorded:
        """Take note of an occurrence."""
        trigger = self._triggers.get(occurrence.trigger)
        if trigger is None:
            return Recorded.STRANGER
        key = _key(occurrence.trigger, occurrence.subject)
        if (mark := self._handled.get(key)) is not None:
            if occurrence.closed and mark.ended is None:
                mark.ended = occurrence.position.sequence
            return Recorded.KNOWN
        floor = self._floors.get(occurrence.position.stream)
        if _not_after(occurrence.position, map(_position, trigger.since)) or (floor and _not_after(occurrence.position, [floor])):
            return Recorded.BEFORE
        return self._take(occurrence)

    def close(self, trigger: str, subject: str, position: Position) -> None:
        """Nothing more will be told about the subject after the event at `position`."""
        mark = self._handled.get(_key(trigger, subject))
        if mark is not None and mark.ended is None:
            mark.ended = position.sequence

    def started(self, occurrence: Occurrence, run: str, time: datetime) -> None:
        """A Run was made for it. Made for one that does not wait any more, nothing changes."""
        if self._pending.pop(_key(occurrence.trigger, occurrence.subject), None) is None:
            return
        entry = self._triggers[occurrence.trigger]
        update = {
            "last_kind": occurrence.kind.value,
            "last_about": occurrence.about,
            "last_run": run,
            "last_time": time,
            "started": entry.started + 1,
            "message": "",
        }
        self._triggers[occurrence.trigger] = entry.model_copy(update=update)

    def suppress(self, occurrence: Occurrence, why: str) -> None:
        """It starts nothing, for a reason that is shown."""
        if self._pending.pop(_key(occurrence.trigger, occurrence.subject), None) is not None:
            self._count(occurrence.trigger, 1, why)

    def worked_off(self, position: Position) -> None:
        """All events of a stream up to this one were recorded and acknowledged: the bus delivers none of them again on its own."""
        floor = self._floors.get(position.stream)
        if floor is not None and floor.created == position.created and floor.sequence >= position.sequence:
            return
        self._floors[position.stream] = position
        if position.stream == "runs":
            self._handled = {
                key: mark
                for key, mark in self._handled.items()
                if mark.ended is None or not mark.replayed or mark.ended > position.sequence
            }

    def _take(self, occurrence: Occurrence) -> Recorded:
        key = _key(occurrence.trigger, occurrence.subject)
        if key in self._handled:
            return Recorded.KNOWN
        ended = occurrence.position.sequence if occurrence.closed else None
        self._handled[key] = _Mark(ended, replayed=occurrence.position.stream == "runs")
        self._forget()
        if len(self._pending) >= MAX_PENDING:
            self._count(occurrence.trigger, 1, f"{MAX_PENDING} occurrences wait already: this one starts nothing")
            return Recorded.OVERFLOW
        self._pending[key] = occurrence
        return Recorded.PENDING

    def _forget(self) -> None:
        while len(self._handled) > MAX_HANDLED:
            ended = (key for key, mark in self._handled.items() if mark.ended is not None and key not in self._pending)
            del self._handled[next(ended, None) or next(key for key in self._handled if key not in self._pending)]

    def _pass_over(self, trigger: str, why: str) -> None:
        keys = [key for key, one in self._pending.items() if one.trigger == trigger]
        for key in keys:
            del self._pending[key]
        if keys:
            self._count(trigger, len(keys), why)

    def _count(self, trigger: str, number: int, why: str) -> None:
        entry = self._triggers[trigger]
        self._triggers[trigger] = entry.model_copy(update={"suppressed": entry.suppressed + number, "message": why})


def _key(trigger: str, subject: str) -> str:
    return hashlib.sha256(f"{trigger}\0{subject}".encode()).hexdigest()[:16]


def _write_mark(key: str, mark: _Mark) -> str:
    if mark.ended is None:
        return key
    return f"{key}@{mark.ended}" if mark.replayed else f"{key}@"


def _read_mark(text: str) -> tuple[str, _Mark]:
    key, at, sequence = text.partition("@")
    if not at:
        return key, _Mark()
    return key, _Mark(int(sequence)) if sequence.isdecimal() else _Mark(0, replayed=False)


def _not_after(position: Position, bounds: Iterable[Position]) -> bool:
    """Whether it is stored at or before one of the bounds, in the same stream."""
    return any(position[:2] == bound[:2] and position.sequence <= bound.sequence for bound in bounds)


def _position(stored: StreamPosition) -> Position:
    return Position("inbound" if stored.stream == "inbound" else "runs", stored.created, stored.sequence)


def _stored(position: Position) -> StreamPosition:
    return StreamPosition(stream=position.stream, created=position.created, sequence=position.sequence)


def _occurrence(stored: PendingOccurrence) -> Occurrence:
    position = _position(stored.position)
    return Occurrence(stored.trigger, stored.subject, V1EventKind(stored.kind), stored.about, position, stored.closed)


def _pending(one: Occurrence) -> PendingOccurrence:
    return PendingOccurrence(
        trigger=one.trigger, subject=one.subject, kind=one.kind.value, about=one.about, position=_stored(one.position), closed=one.closed
    )
