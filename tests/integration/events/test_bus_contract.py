"""What every Bus does: the double in memory and the real one go through the same tests."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from kfp_operator.errors import StreamMissing, WrongLastSequence
from kfp_operator.events.bus import Cursor, Delivery
from tests.integration.events.rigs import ACK_WAIT, Reader, Rig
from tests.waiting import eventually_async

RUNS = "kfp-operator-runs"
ONE = "events.run-completion.team-a.one.uid.1"
TWO = "events.run-completion.team-a.two.uid.1"
STATUS = "events.run-status.team-a.one.uid.1"


async def publish(rig: Rig, *subjects: str) -> list[int]:
    return [await rig.bus.publish(subject, subject.encode(), {}) for subject in subjects]


@pytest.fixture
async def reader(rig: Rig) -> AsyncIterator[Reader]:
    one = Reader(rig.bus.consume(RUNS, "projector"))
    yield one
    await one.close()


def subjects_of(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.subject for delivery in deliveries]


# Storing


async def test_a_message_is_stored_as_it_was_sent(rig: Rig) -> None:
    before = datetime.now(UTC)
    data = bytes(range(256))
    sequence = await rig.bus.publish(ONE, data, {"content-type": "application/x", "ce-Odd": "a%20b"})
    message = await rig.bus.last(RUNS, ONE)
    assert message is not None
    assert (message.stream, message.sequence, message.subject, message.data) == (RUNS, sequence, ONE, data)
    assert message.headers["content-type"] == "application/x"
    assert message.headers["ce-Odd"] == "a%20b"
    assert message.time.tzinfo is not None
    assert before - timedelta(days=400) < message.time


async def test_sequences_count_the_messages_of_a_stream(rig: Rig) -> None:
    assert await rig.bus.last_sequence(RUNS) == 0
    assert await publish(rig, ONE, STATUS, TWO) == [1, 2, 3]
    assert await rig.bus.last_sequence(RUNS) == 3
    assert await rig.bus.publish("events.dead-letter.x.1", b"", {}) == 1


async def test_a_message_without_body_and_headers_can_be_stored(rig: Rig) -> None:
    await rig.bus.publish(ONE, b"", {})
    message = await rig.bus.last(RUNS, ONE)
    assert message is not None
    assert message.data == b""


async def test_last_is_the_newest_on_exactly_that_subject(rig: Rig) -> None:
    await publish(rig, ONE, TWO)
    await rig.bus.publish(ONE, b"newer", {})
    message = await rig.bus.last(RUNS, ONE)
    assert message is not None
    assert (message.sequence, message.data) == (3, b"newer")
    assert await rig.bus.last(RUNS, STATUS) is None


async def test_last_takes_wildcards(rig: Rig) -> None:
    await publish(rig, ONE, STATUS, TWO)
    message = await rig.bus.last(RUNS, "events.run-completion.team-a.*.uid.*")
    assert message is not None
    assert message.subject == TWO
    assert await rig.bus.last(RUNS, "events.run-completion.team-b.>") is None


async def test_an_expected_sequence_of_zero_means_an_empty_subject(rig: Rig) -> None:
    assert await rig.bus.publish(ONE, b"1", {}, expected_last=0) == 1
    with pytest.raises(WrongLastSequence):
        await rig.bus.publish(ONE, b"2", {}, expected_last=0)
    assert await rig.bus.publish(TWO, b"3", {}, expected_last=0) == 2
    message = await rig.bus.last(RUNS, ONE)
    assert message is not None
    assert message.data == b"1"


async def test_what_another_stream_stores_is_not_published(rig: Rig) -> None:
    assert await rig.bus.publish(ONE, b"1", {}, stream=RUNS) == 1
    with pytest.raises(StreamMissing):
        await rig.bus.publish(ONE, b"2", {}, stream="kfp-operator-documented")
    assert await rig.bus.last_sequence(RUNS) == 1


async def test_an_expected_sequence_is_that_of_the_subject_not_of_the_stream(rig: Rig) -> None:
    await publish(rig, ONE, TWO)
    assert await rig.bus.publish(ONE, b"", {}, expected_last=1) == 3
    with pytest.raises(WrongLastSequence):
        await rig.bus.publish(ONE, b"", {}, expected_last=1)


async def test_a_deleted_message_leaves_its_subject_empty(rig: Rig) -> None:
    await publish(rig, ONE)
    await rig.bus.delete(RUNS, 1)
    assert await rig.bus.last(RUNS, ONE) is None
    assert await rig.bus.publish(ONE, b"", {}, expected_last=0) == 2


@pytest.mark.parametrize("sequence", [1, 77])
async def test_deleting_what_is_gone_is_fine(rig: Rig, sequence: int) -> None:
    await publish(rig, ONE)
    await rig.bus.delete(RUNS, 1)
    await rig.bus.delete(RUNS, sequence)


async def test_a_message_with_a_time_to_live_vanishes(rig: Rig) -> None:
    await rig.bus.publish(STATUS, b"", {}, ttl=1.0)
    await publish(rig, ONE)

    async def gone() -> str:
        assert await rig.bus.last(RUNS, STATUS) is None
        return "gone"

    assert await rig.bus.last(RUNS, STATUS) is not None
    seen: str = await eventually_async(gone, 10, "the message expires")
    assert seen == "gone"
    assert await rig.bus.publish(STATUS, b"", {}, expected_last=0) == 3
    assert await rig.bus.last(RUNS, ONE) is not None


async def test_a_subject_that_no_stream_stores_is_named(rig: Rig) -> None:
    with pytest.raises(StreamMissing, match="elsewhere"):
        await publish(rig, "elsewhere.x")


async def test_a_stream_that_is_missing_is_named(rig: Rig) -> None:
    for call in (rig.bus.last("nope", ONE), rig.bus.delete("nope", 1), rig.bus.last_sequence("nope")):
        with pytest.raises(StreamMissing):
            await call


# Consuming


async def test_messages_come_in_order_whether_stored_before_or_later(rig: Rig, reader: Reader) -> None:
    await publish(rig, ONE, TWO)
    first = await reader.take_all(2)
    await publish(rig, STATUS)
    third = await reader.take()
    assert subjects_of([*first, third]) == [ONE, TWO, STATUS]
    assert [delivery.message.sequence for delivery in [*first, third]] == [1, 2, 3]
    assert [delivery.deliveries for delivery in [*first, third]] == [1, 1, 1]
    assert third.message.data == STATUS.encode()
    assert third.message.stream == RUNS


async def test_what_is_acknowledged_does_not_come_again(rig: Rig, reader: Reader) -> None:
    await publish(rig, ONE)
    await (await reader.take()).ack()
    assert await reader.nothing(ACK_WAIT * 2)


async def test_what_is_not_settled_comes_again_and_says_so(rig: Rig, reader: Reader) -> None:
    await publish(rig, ONE)
    await reader.take()
    again = await reader.take()
    assert (again.message.subject, again.deliveries) == (ONE, 2)
    await again.ack()
    assert await reader.nothing(ACK_WAIT * 2)


async def test_what_is_put_back_comes_again_after_the_delay(rig: Rig, reader: Reader) -> None:
    await publish(rig, ONE)
    await (await reader.take()).nak(ACK_WAIT * 2)
    assert await reader.nothing(ACK_WAIT * 1.4)
    again = await reader.take()
    assert again.deliveries == 2
    await again.ack()


async def test_a_delay_of_zero_is_at_once(rig: Rig, reader: Reader) -> None:
    await publish(rig, ONE)
    await (await reader.take()).nak(0)
    assert (await reader.take(ACK_WAIT * 0.8)).deliveries == 2


async def test_progress_keeps_a_message_from_coming_again(rig: Rig, reader: Reader) -> None:
    await publish(rig, ONE)
    delivery = await reader.take()
    for _ in range(3):
        await delivery.in_progress()
        assert await reader.nothing(ACK_WAIT * 0.6)
    await delivery.ack()
    assert await reader.nothing(ACK_WAIT * 1.5)


async def test_what_is_terminated_does_not_come_again(rig: Rig, reader: Reader) -> None:
    await publish(rig, ONE)
    await (await reader.take()).term("no event: é\nat all")
    assert await reader.nothing(ACK_WAIT * 1.5)
    assert await rig.bus.last(RUNS, ONE) is not None


async def test_a_message_that_is_put_back_does_not_hold_up_others(rig: Rig, reader: Reader) -> None:
    await publish(rig, ONE, TWO)
    await (await reader.take()).nak(60)
    assert (await reader.take()).message.subject == TWO


async def test_a_consumer_goes_on_where_it_was(rig: Rig, reader: Reader) -> None:
    await publish(rig, ONE, TWO)
    await (await reader.take()).ack()
    await (await reader.take()).ack()
    await reader.close()
    await publish(rig, STATUS)
    later = Reader(rig.bus.consume(RUNS, "projector"))
    assert (await later.take()).message.subject == STATUS
    await later.close()


async def test_what_was_in_hand_when_a_consumer_stopped_comes_to_the_next(rig: Rig, reader: Reader) -> None:
    await publish(rig, ONE, TWO)
    await reader.take()
    await reader.close()
    later = Reader(rig.bus.consume(RUNS, "projector"))
    deliveries = sorted(subjects_of(await later.take_all(2)))
    assert deliveries == [ONE, TWO]
    await later.close()


async def test_consumers_do_not_take_from_each_other(rig: Rig, reader: Reader) -> None:
    await publish(rig, ONE)
    await (await reader.take()).ack()
    other = Reader(rig.bus.consume(RUNS, "triggers"))
    assert (await other.take()).message.subject == ONE
    await other.close()


async def test_a_consumer_may_want_some_subjects_only(rig: Rig) -> None:
    await publish(rig, ONE, STATUS, TWO)
    reader = Reader(rig.bus.consume(RUNS, "projector", subjects=["events.run-status.>", "events.dag-status.>"]))
    assert (await reader.take()).message.subject == STATUS
    assert await reader.nothing(0.3)
    await reader.close()


async def test_a_deleted_message_is_not_delivered(rig: Rig, reader: Reader) -> None:
    await publish(rig, ONE, TWO)
    await rig.bus.delete(RUNS, 1)
    assert (await reader.take()).message.subject == TWO


# Cursors


async def eventually_at(rig: Rig, sequence: int) -> Cursor:
    async def there() -> Cursor:
        cursor = await rig.bus.cursor(RUNS, "projector")
        assert cursor is not None
        assert cursor.sequence == sequence
        return cursor

    return await eventually_async(there, 20, f"the cursor is at {sequence}")


async def test_there_is_no_cursor_without_a_consumer(rig: Rig) -> None:
    assert await rig.bus.cursor(RUNS, "projector") is None


async def test_a_cursor_stands_before_the_first_unsettled_message(rig: Rig, reader: Reader) -> None:
    await publish(rig, ONE, TWO, STATUS)
    one, two, three = await reader.take_all(3)
    await eventually_at(rig, 0)
    await three.ack()
    await one.ack()
    await eventually_at(rig, 1)
    await two.term("foreign")
    await eventually_at(rig, 3)


async def test_a_consumer_that_was_deleted_is_made_again_after_its_cursor(rig: Rig) -> None:
    cursors: list[Cursor] = []
    reader = Reader(rig.bus.consume(RUNS, "projector", resume=lambda: cursors[-1] if cursors else None))
    await publish(rig, ONE, TWO)
    for delivery in await reader.take_all(2):
        await delivery.ack()
    cursors.append(await eventually_at(rig, 2))
    await rig.delete_consumer("runs", "projector")
    await publish(rig, STATUS)
    assert (await reader.take()).message.subject == STATUS
    await reader.close()


async def test_a_consumer_that_was_deleted_is_made_again_at_the_beginning_without_a_cursor(rig: Rig, reader: Reader) -> None:
    await publish(rig, ONE)
    await (await reader.take()).ack()
    await rig.delete_consumer("runs", "projector")
    assert (await reader.take()).message.subject == ONE


async def test_the_cursor_of_a_stream_that_was_deleted_means_nothing_for_the_next(rig: Rig) -> None:
    cursors: list[Cursor] = []
    reader = Reader(rig.bus.consume(RUNS, "projector", resume=lambda: cursors[-1] if cursors else None))
    await publish(rig, ONE, TWO)
    for delivery in await reader.take_all(2):
        await delivery.ack()
    cursors.append(await eventually_at(rig, 2))
    await rig.delete_stream("runs")
    await rig.make_streams()
    await publish(rig, STATUS)
    again = await reader.take()
    assert (again.message.subject, again.message.sequence) == (STATUS, 1)
    await reader.close()


async def test_a_consumer_waits_for_its_stream(rig: Rig) -> None:
    await rig.delete_stream("runs")
    reader = Reader(rig.bus.consume(RUNS, "projector"))
    assert await reader.nothing(0.3)
    await rig.make_streams()
    await publish(rig, ONE)
    assert (await reader.take()).message.subject == ONE
    await reader.close()
