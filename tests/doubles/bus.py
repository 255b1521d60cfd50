"""JetStream in memory: a Bus that keeps what it is told, forgets nothing by itself, and fails when told to.

It behaves as the real one does for the operations in use; tests/integration/events/test_bus_contract.py runs against both.
Without a `clock` its time stands still until `advance`, so that a test is the same every time.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kfp_operator.errors import BusUnavailable, StreamMissing, WrongLastSequence
from kfp_operator.events.bus import Cursor, StoredMessage
from kfp_operator.events.subjects import ROLES, Subjects

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_READS = frozenset({"last", "last_sequence", "cursor"})


def matches(pattern: str, subject: str) -> bool:
    """Whether a NATS subject pattern matches a subject."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > index
        if index >= len(tokens) or token not in ("*", tokens[index]):
            return False
    return len(wanted) == len(tokens)


@dataclass
class _Pending:
    due: float
    deliveries: int


@dataclass
class _Consumer:
    subjects: tuple[str, ...]
    next: int
    floor: int
    pending: dict[int, _Pending] = field(default_factory=dict)


@dataclass
class _Stream:
    name: str
    subjects: tuple[str, ...]
    created: str
    messages: dict[int, StoredMessage] = field(default_factory=dict)
    expires: dict[int, float] = field(default_factory=dict)
    last: int = 0
    consumers: dict[str, _Consumer] = field(default_factory=dict)


class MemoryBus:
    """All streams of the operator, in memory.

    Args:
        subjects: Prefix and names.
        clock: Seconds; None: time stands still until `advance`.
        ack_wait: Seconds after which an unsettled message is delivered again.

    """

    def __init__(self, subjects: Subjects | None = None, *, clock: Callable[[], float] | None = None, ack_wait: float = 10.0) -> None:
        self.subjects = subjects or Subjects()
        self.ack_wait = ack_wait
        self.terminated: list[tuple[StoredMessage, str]] = []
        self.calls: Counter[str] = Counter()
        self._clock = clock
        self._manual = 0.0
        self._made = 0
        self._down = False
        self._failures: dict[tuple[str, int], bool] = {}
        self._streams: dict[str, _Stream] = {}
        self._changed = asyncio.Event()
        for role in ROLES:
            self.add_stream(self.subjects.stream(role), self.subjects.stored_by(role))

    # What a test does to it

    def add_stream(self, name: str, subjects: Sequence[str]) -> None:
        """Make a stream; one that was deleted begins anew."""
        self._made += 1
        self._streams[name] = _Stream(name, tuple(subjects), created=f"{(EPOCH + timedelta(seconds=self._made)).isoformat()}")
        self._wake()

    def delete_stream(self, name: str) -> None:
        """Remove a stream with its messages and consumers."""
        del self._streams[name]
        self._wake()

    def delete_consumer(self, stream: str, durable: str) -> None:
        """Remove a consumer: what it settled is forgotten."""
        del self._streams[stream].consumers[durable]
        self._wake()

    def messages(self, pattern: str = ">") -> list[StoredMessage]:
        """Everything stored on matching subjects, stream by stream, in order."""
        self._expire()
        return [m for stream in self._streams.values() for m in stream.messages.values() if matches(pattern, m.subject)]

    def fail(self, operation: str, *, answer_lost: bool = False, times: int = 1, after: int = 0) -> None:
        """Let the next calls of `operation` (publish, last, delete, last_sequence, cursor, settle) fail, `after` good ones.

        `answer_lost`: they take effect, but the caller does not learn it. ``settle`` stands for ack, nak, in_progress and term, which
        never raise: they just do not arrive.
        """
        first = self.calls[operation] + after + 1
        self._failures |= {(operation, number): answer_lost for number in range(first, first + times)}

    @property
    def down(self) -> bool:
        """Whether the bus is away."""
        return self._down

    @down.setter
    def down(self, value: bool) -> None:
        self._down = value
        self._wake()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._manual += seconds
        self._wake()

    # Bus

    @property
    def connected(self) -> bool:
        return not self._down

    async def publish(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str],
        *,
        stream: str = "",
        delivered: bool = False,
        expected_last: int | None = None,
        ttl: float | None = None,
    ) -> int:
        lost = self._enter("publish")
        found = next((s for s in self._streams.values() if any(matches(pattern, subject) for pattern in s.subjects)), None)
        if found is None or (stream and found.name != stream):
            raise StreamMissing(f"no stream {stream} stores {subject}")
        self._expire()
        present = self._last(found, subject)
        if expected_last is not None and expected_last != (present.sequence if present else 0):
            raise self._answer(lost, WrongLastSequence(f"{subject} is at {present.sequence if present else 0}"))
        found.last += 1
        time = EPOCH + timedelta(seconds=self._time())
        found.messages[found.last] = StoredMessage(found.name, found.last, subject, dict(headers), bytes(data), time)
        if ttl is not None:
            found.expires[found.last] = self._time() + ttl
        self._wake()
        if lost:
            raise self._answer(lost, BusUnavailable("no answer to a publish"))
        return found.last

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        self._enter("last")
        self._expire()
        return self._last(self._stream(stream), subject)

    async def delete(self, stream: str, sequence: int) -> None:
        lost = self._enter("delete")
        found = self._stream(stream)
        found.messages.pop(sequence, None)
        for consumer in found.consumers.values():
            consumer.pending.pop(sequence, None)
        if lost:
            raise self._answer(lost, BusUnavailable("no answer to a delete"))

    async def last_sequence(self, stream: str) -> int:
        self._enter("last_sequence")
        return self._stream(stream).last

    async def cursor(self, stream: str, durable: str) -> Cursor | None:
        self._enter("cursor")
        found = self._streams.get(stream)
        consumer = found.consumers.get(durable) if found else None
        return Cursor(found.created, min([*consumer.pending, consumer.next]) - 1) if found and consumer else None

    async def consume(
        self, stream: str, durable: str, *, subjects: Sequence[str] = (), resume: Callable[[], Cursor | None] | None = None
    ) -> AsyncIterator["MemoryDelivery"]:
        while True:
            self._changed.clear()
            if (delivery := self.poll(stream, durable, subjects=subjects, resume=resume)) is not None:
                yield delivery
                continue
            try:
                await asyncio.wait_for(self._changed.wait(), self._until_due(stream, durable))
            except TimeoutError:
                continue

    def poll(
        self, stream: str, durable: str, *, subjects: Sequence[str] = (), resume: Callable[[], Cursor | None] | None = None
    ) -> "MemoryDelivery | None":
        """The next delivery of a consumer, None when there is none now: `consume` for tests that do not wait."""
        self._expire()
        found = self._streams.get(stream)
        if self._down or found is None:
            return None
        if durable not in found.consumers:
            cursor = resume() if resume else None
            start = cursor.sequence + 1 if cursor and cursor.created == found.created else 1
            found.consumers[durable] = _Consumer(tuple(subjects), next=start, floor=start - 1)
        consumer = found.consumers[durable]
        for sequence in self._candidates(found, consumer):
            pending = consumer.pending.setdefault(sequence, _Pending(0.0, 0))
            pending.deliveries += 1
            pending.due = self._time() + self.ack_wait
            return MemoryDelivery(self, found, consumer, found.messages[sequence], pending.deliveries)
        return None

    # Inside

    def _candidates(self, stream: _Stream, consumer: _Consumer) -> Iterator[int]:
        for sequence in [s for s, p in sorted(consumer.pending.items()) if p.due <= self._time()]:
            yield sequence
        while consumer.next <= stream.last:
            sequence = consumer.next
            consumer.next += 1
            message = stream.messages.get(sequence)
            if message and (not consumer.subjects or any(matches(pattern, message.subject) for pattern in consumer.subjects)):
                yield sequence

    def _until_due(self, stream: str, durable: str) -> float | None:
        if self._clock is None:
            return None
        found = self._streams.get(stream)
        consumer = found.consumers.get(durable) if found else None
        times = [p.due for p in consumer.pending.values()] if consumer else []
        return max(0.0, min(times) - self._time()) if times else None

    def _time(self) -> float:
        return self._clock() if self._clock else self._manual

    def _wake(self) -> None:
        self._changed.set()

    def _enter(self, operation: str) -> bool:
        """Count a call, fail it if it shall; True: its answer shall get lost."""
        self.calls[operation] += 1
        if self._down:
            raise BusUnavailable("not connected")
        answer_lost = self._failures.pop((operation, self.calls[operation]), None)
        if answer_lost is False or (answer_lost and operation in _READS):
            raise BusUnavailable(f"no answer to {operation}")
        return bool(answer_lost)

    def _answer(self, lost: bool, error: Exception) -> Exception:
        return BusUnavailable("no answer") if lost else error

    def _stream(self, name: str) -> _Stream:
        if name not in self._streams:
            raise StreamMissing(f"there is no stream {name}")
        return self._streams[name]

    def _last(self, stream: _Stream, subject: str) -> StoredMessage | None:
        return next((m for m in reversed(stream.messages.values()) if matches(subject, m.subject)), None)

    def _expire(self) -> None:
        for stream in self._streams.values():
            for sequence in [s for s, due in stream.expires.items() if due <= self._time()]:
                del stream.expires[sequence]
                stream.messages.pop(sequence, None)
                for consumer in stream.consumers.values():
                    consumer.pending.pop(sequence, None)


class MemoryDelivery:
    """A message handed out by `MemoryBus`."""

    def __init__(self, bus: MemoryBus, stream: _Stream, consumer: _Consumer, message: StoredMessage, deliveries: int) -> None:
        self._bus = bus
        self._stream = stream
        self._consumer = consumer
        self._message = message
        self._deliveries = deliveries

    @property
    def message(self) -> StoredMessage:
        return self._message

    @property
    def deliveries(self) -> int:
        return self._deliveries

    async def ack(self) -> None:
        if self._arrives():
            self._consumer.pending.pop(self._message.sequence, None)

    async def nak(self, delay: float) -> None:
        self._postpone(delay)

    async def in_progress(self) -> None:
        self._postpone(self._bus.ack_wait)

    async def term(self, reason: str) -> None:
        if self._arrives():
            self._consumer.pending.pop(self._message.sequence, None)
            self._bus.terminated.append((self._message, reason))

    def _postpone(self, delay: float) -> None:
        if self._arrives() and (pending := self._consumer.pending.get(self._message.sequence)):
            pending.due = self._bus._time() + delay
            self._bus._wake()

    def _arrives(self) -> bool:
        try:
            return not self._bus._enter("settle")
        except BusUnavailable:
            return False
