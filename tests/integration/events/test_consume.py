"""Consuming from a real server: batches, sizes, slow consumers, orderly leaving."""

from collections.abc import AsyncIterator

import pytest

from kfp_operator.events.jetstream import BATCH, JetStreamBus
from kfp_operator.events.streams import Streams
from kfp_operator.settings import EventsSettings, NatsSettings
from tests.cluster import NatsServer
from tests.integration.events.rigs import SUBJECTS, Reader, until_connected
from tests.waiting import eventually_async

RUNS = "kfp-operator-runs"


async def publish(bus: JetStreamBus, count: int, body: bytes = b"") -> None:
    for number in range(1, count + 1):
        await bus.publish(f"events.run-completion.team-a.one.uid.{number}", body, {})


@pytest.fixture
async def patient(nats: NatsServer) -> AsyncIterator[JetStreamBus]:
    """A bus whose messages are not delivered again within a test."""
    async with JetStreamBus(NatsSettings(servers=[nats.url]), ack_wait=60.0) as bus:
        await until_connected(bus)
        await Streams(bus, SUBJECTS, EventsSettings()).ensure()
        yield bus


async def test_more_than_one_batch_comes_whole_and_in_order(patient: JetStreamBus) -> None:
    await publish(patient, 2 * BATCH + 50)
    reader = Reader(patient.consume(RUNS, "projector"))
    sequences = [delivery.message.sequence for delivery in await reader.take_all(2 * BATCH + 50)]
    assert sequences == list(range(1, 2 * BATCH + 51))
    await reader.close()


async def test_large_messages_come_in_portions_which_is_no_problem(patient: JetStreamBus, caplog: pytest.LogCaptureFixture) -> None:
    await publish(patient, 40, b"x" * 1_000_000)
    reader = Reader(patient.consume(RUNS, "projector"))
    for expected in range(1, 41):
        delivery = await reader.take()
        assert (delivery.message.sequence, len(delivery.message.data)) == (expected, 1_000_000)
        await delivery.ack()
    assert "consumer projector" not in caplog.text
    await reader.close()


async def test_what_a_leaving_consumer_had_not_handed_out_comes_to_the_next_at_once(patient: JetStreamBus) -> None:
    await publish(patient, 20)
    first = Reader(patient.consume(RUNS, "projector"))
    await (await first.take()).ack()

    async def all_fetched() -> int:
        info = await patient.api(f"CONSUMER.INFO.{RUNS}.projector")
        assert info["delivered"]["stream_seq"] == 20
        return 20

    fetched: int = await eventually_async(all_fetched, 20, "the server has handed out all messages")
    await first.close()
    second = Reader(patient.consume(RUNS, "projector"))
    sequences = sorted(delivery.message.sequence for delivery in await second.take_all(fetched - 1))
    assert sequences == list(range(2, 21))
    await second.close()


async def test_a_slow_consumer_gets_each_message_while_it_is_its_own(bus: JetStreamBus) -> None:
    await publish(bus, 10)
    reader = Reader(bus.consume(RUNS, "projector"))
    await (await reader.take()).ack()

    async def all_again() -> int:
        info = await bus.api(f"CONSUMER.INFO.{RUNS}.projector")
        assert info["num_redelivered"] == 9
        return 9

    again: int = await eventually_async(all_again, 10, "the server has handed out the rest once more")
    deliveries = await reader.take_all(again)
    for delivery in deliveries:
        await delivery.ack()
    assert sorted(delivery.message.sequence for delivery in deliveries) == list(range(2, 11))
    assert all(delivery.deliveries > 1 for delivery in deliveries)
    assert await reader.nothing(1.5)
    await reader.close()
