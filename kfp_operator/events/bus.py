"""The seam between event logic and NATS: what we need of a durable bus, and nothing of its client library."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as a stream keeps it. Header names are as sent."""

    stream: str
    sequence: int
    subject: str
    headers: Mapping[str, str]
    data: bytes
    time: datetime


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a consumer got: everything up to `sequence` is settled, in the stream that was created at that time.

    Sequences begin anew when a stream is made anew, so one without the other says nothing.
    """

    created: str
    """The stream's creation time as the server writes it (RFC 3339), compared by spelling."""
    sequence: int


class Delivery(Protocol):
    """A message handed to a durable consumer: settle it exactly once, after its effect.

    Settling never raises because the bus is away: what the server does not hear of it delivers again, which every consumer must
    bear anyway.
    """

    @property
    def message(self) -> StoredMessage:
        """What was stored."""

    @property
    def deliveries(self) -> int:
        """How often it was delivered, this time included (from 1)."""

    async def ack(self) -> None:
        """Done: never again."""

    async def nak(self, delay: float) -> None:
        """Again, in `delay` seconds."""

    async def in_progress(self) -> None:
        """Still being worked on: start ack_wait anew."""

    async def term(self, reason: str) -> None:
        """Can never be understood: never again, and say why."""


class Bus(Protocol):
    """JetStream as the operator uses it.

    Raises BusUnavailable (no answer: outcome unknown), StreamMissing, WrongLastSequence, and BusError for any other refusal.
    """

    @property
    def connected(self) -> bool:
        """Whether a server is connected now."""

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
        """Store a message and return its sequence.

        `stream`: only in this one; StreamMissing when another stores the subject. `delivered`: a consumer delivers the message on with its
        headers, so `stream` is not among them, which would bind whoever stores the delivery, but judged by the answer.
        `expected_last`: only if that is the subject's last sequence (0: none). `ttl`: seconds until it is removed.
        """

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """The newest message stored on the subject, which may hold wildcards."""

    async def delete(self, stream: str, sequence: int) -> None:
        """Remove one message; fine when it is gone."""

    async def last_sequence(self, stream: str) -> int:
        """The stream's newest sequence, 0 when it never held one."""

    async def cursor(self, stream: str, durable: str) -> Cursor | None:
        """How far the consumer got; None while there is no such consumer."""

    def consume(
        self, stream: str, durable: str, *, subjects: Sequence[str] = (), resume: Callable[[], Cursor | None] | None = None
    ) -> AsyncIterator[Delivery]:
        """Deliveries of a durable pull consumer, for ever: outages are waited out with a backoff.

        `subjects`: only messages on these (wildcards allowed). `resume` is asked when the consumer has to be made: it starts after that
        cursor if the stream is still the same one, else at the stream's beginning. Messages that are not settled come again.
        """
