import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import pytest
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from kfp_operator.cli import feed
from kfp_operator.events import publisher
from kfp_operator.events.connection import Connection, Link
from kfp_operator.events.jetstream import JetStreamBus
from kfp_operator.events.streams import Streams
from kfp_operator.events.subjects import Subjects
from kfp_operator.settings import EventsSettings, NatsSettings
from tests.cluster import NatsServer
from tests.doubles.events import completion, status

SUBJECTS = Subjects()


class LossyConnection(Connection):
    """Loses the second message of the stream once, as a client that cannot keep up does."""

    lost = False

    async def subscribe(self, link: Link, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        async def lossy(message: Msg) -> None:
            if not self.lost and message.reply.startswith("$JS.ACK.") and message.metadata.sequence.stream == 2:
                self.lost = True
                return
            await callback(message)

        return await super().subscribe(link, subject, lossy)


@pytest.fixture
async def bus(nats: NatsServer) -> AsyncIterator[JetStreamBus]:
    settings = NatsSettings(servers=[nats.url])
    bus = JetStreamBus(settings)
    bus.connection = LossyConnection(settings)
    async with bus:
        await feed.connected(bus)
        await Streams(bus, SUBJECTS, EventsSettings()).ensure()
        yield bus


async def test_a_message_that_was_lost_on_the_way_is_read_again_and_none_twice(bus: JetStreamBus) -> None:
    for event in (status(), status(transition=2, state="retrying"), completion()):
        await publisher.store(bus, SUBJECTS, event)
    sequences: list[int] = []
    async with asyncio.timeout(20), aclosing(feed.follow(bus, SUBJECTS.stream("runs"), SUBJECTS.stored_by("runs"), "all")) as messages:
        async for message in messages:
            if isinstance(message, feed.Interruption):
                assert "lost on the way" in message.message
                continue
            sequences.append(message.sequence)
            if len(sequences) == 3:
                break
    assert isinstance(bus.connection, LossyConnection)
    assert bus.connection.lost
    assert sequences == [1, 2, 3]
