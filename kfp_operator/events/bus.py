"""The seam between event logic and NATS: what we need of a durable bus, and nothing of its client library."""

from collections.abc import AsyncIterator, Mapping
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


class Delivery(Protocol):
    """A message handed to a durable consumer: settle it exactly once, after its effect."""

    @property
    def message(self) -> StoredMessage: ...
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

    Raises BusUnavailable (no answer: outcome unknown), StreamMissing, WrongLastSequence.
    """

    @property
    def connected(self) -> bool: ...

    async def publish(
        self, subject: str, data: bytes, headers: Mapping[str, str], *, expected_last: int | None = None, ttl: float | None = None
    ) -> int:
        """Store a message and return its sequence. `expected_last`: only if that is the subject's last sequence (0: none). `ttl` in seconds."""

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """The newest message stored on the subject."""

    async def delete(self, stream: str, sequence: int) -> None:
        """Remove one message; fine when it is gone."""

    async def last_sequence(self, stream: str) -> int:
        """The stream's newest sequence, 0 when it never held one."""

    def consume(self, stream: str, durable: str) -> AsyncIterator[Delivery]:
        """Deliveries of a durable pull consumer, for ever: outages are waited out with a backoff."""
