"""One way to drive both buses: the one in memory and the one on a real server."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Protocol

from kfp_operator.events.bus import Bus, Delivery
from kfp_operator.events.jetstream import JetStreamBus
from kfp_operator.events.streams import Streams
from kfp_operator.events.subjects import Role, Subjects
from kfp_operator.settings import EventsSettings, NatsSettings
from tests.cluster import NatsServer
from tests.doubles.bus import MemoryBus
from tests.waiting import eventually_async

ACK_WAIT = 0.6
SUBJECTS = Subjects()


class Rig(Protocol):
    """A bus, and what happens to it."""

    @property
    def bus(self) -> Bus: ...
    async def delete_stream(self, role: Role) -> None: ...
    async def make_streams(self) -> None: ...
    async def delete_consumer(self, role: Role, durable: str) -> None: ...


class MemoryRig:
    def __init__(self) -> None:
        self.bus = MemoryBus(SUBJECTS, clock=time.monotonic, ack_wait=ACK_WAIT)

    async def delete_stream(self, role: Role) -> None:
        self.bus.delete_stream(SUBJECTS.stream(role))

    async def make_streams(self) -> None:
        self.bus.add_stream(SUBJECTS.stream("runs"), SUBJECTS.stored_by("runs"))

    async def delete_consumer(self, role: Role, durable: str) -> None:
        self.bus.delete_consumer(SUBJECTS.stream(role), durable)


class JetStreamRig:
    def __init__(self, bus: JetStreamBus) -> None:
        self.bus = bus
        self._streams = Streams(bus, SUBJECTS, EventsSettings())

    async def delete_stream(self, role: Role) -> None:
        await self.bus.api(f"STREAM.DELETE.{SUBJECTS.stream(role)}")

    async def make_streams(self) -> None:
        await self._streams.ensure()

    async def delete_consumer(self, role: Role, durable: str) -> None:
        await self.bus.api(f"CONSUMER.DELETE.{SUBJECTS.stream(role)}.{durable}")


@contextlib.asynccontextmanager
async def connected(server: NatsServer, **settings: object) -> AsyncIterator[JetStreamBus]:
    """A bus on a server, connected."""
    nats = NatsSettings.model_validate({"servers": [server.url], **settings})
    async with JetStreamBus(nats, ack_wait=ACK_WAIT, longest_pause=0.5) as bus:
        await until_connected(bus)
        yield bus


async def until_connected(bus: JetStreamBus, within: float = 10.0) -> None:
    """Return when the bus is connected."""
    await eventually_async(lambda: bus.connected, within, "the bus is connected")


class Reader:
    """Takes deliveries one by one, with a deadline."""

    def __init__(self, deliveries: AsyncIterator[Delivery]) -> None:
        self._deliveries = deliveries
        self._next: asyncio.Task[Delivery] | None = None

    async def take(self, within: float = 10.0) -> Delivery:
        """The next delivery."""
        if self._next is None:
            self._next = asyncio.create_task(self._step())
        done, _ = await asyncio.wait({self._next}, timeout=within)
        if not done:
            raise TimeoutError(f"no delivery within {within:g} s")
        task, self._next = self._next, None
        return task.result()

    async def take_all(self, count: int) -> Sequence[Delivery]:
        """The next `count` deliveries."""
        return [await self.take() for _ in range(count)]

    async def nothing(self, during: float) -> bool:
        """Whether no delivery comes during that many seconds."""
        try:
            delivery = await self.take(during)
        except TimeoutError:
            return True
        raise AssertionError(f"unexpected: {delivery.message.subject} ({delivery.deliveries})")

    async def close(self) -> None:
        """Stop consuming."""
        if self._next is not None:
            self._next.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._next
        if isinstance(self._deliveries, AsyncGenerator):
            await self._deliveries.aclose()

    async def _step(self) -> Delivery:
        return await anext(self._deliveries)
