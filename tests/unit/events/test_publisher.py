import logging

import pytest

from kfp_operator.errors import BusError, BusUnavailable, EventError, StreamMissing
from kfp_operator.events.binding import decode, decode_value, encode
from kfp_operator.events.bus import StoredMessage
from kfp_operator.events.envelope import STATUS_TTL, RunEvent, build, bus_subject, event_id, receive
from kfp_operator.events.publisher import SlotTaken, Stored, dead_letter, newest, publish_documented, store
from kfp_operator.events.subjects import Subjects
from tests.doubles.bus import EPOCH, MemoryBus
from tests.doubles.events import completion, status

SUBJECTS = Subjects()
EVENTS = pytest.mark.parametrize("data", [completion(), status()], ids=["completion", "status"])


@EVENTS
async def test_an_event_is_stored_on_its_subject(data: RunEvent) -> None:
    bus = MemoryBus()
    assert await store(bus, SUBJECTS, data) == Stored(1, False, data)
    [message] = bus.messages()
    assert message.stream == "kfp-operator-runs"
    assert receive(SUBJECTS, message).data == data


@EVENTS
async def test_an_event_is_stored_once_however_often_it_is_told(data: RunEvent) -> None:
    bus = MemoryBus()
    await store(bus, SUBJECTS, data)
    assert await store(bus, SUBJECTS, data) == Stored(1, True, data)
    assert len(bus.messages()) == 1


@EVENTS
async def test_a_lost_answer_is_repaired_by_the_next_try(data: RunEvent) -> None:
    bus = MemoryBus()
    bus.fail("publish", answer_lost=True)
    with pytest.raises(BusUnavailable):
        await store(bus, SUBJECTS, data)
    assert await store(bus, SUBJECTS, data) == Stored(1, True, data)


async def test_the_first_version_of_a_completion_stands() -> None:
    bus = MemoryBus()
    await store(bus, SUBJECTS, completion(message="first"))
    result = await store(bus, SUBJECTS, completion(message="second", state="failed", status="failed"))
    assert result == Stored(1, True, completion(message="first"))


async def test_attempts_are_events_of_their_own() -> None:
    bus = MemoryBus()
    await store(bus, SUBJECTS, completion(attempt=1))
    assert await store(bus, SUBJECTS, completion(attempt=2)) == Stored(2, False, completion(attempt=2))


@pytest.mark.parametrize("changes", [{"state": "queued"}, {"attempt": 2}])
async def test_a_status_slot_of_another_change_is_told(changes: dict[str, object]) -> None:
    bus = MemoryBus()
    taken = status(**changes)
    await store(bus, SUBJECTS, taken)
    assert await store(bus, SUBJECTS, status()) == SlotTaken(1, taken)
    assert len(bus.messages()) == 1


async def test_the_same_change_told_with_another_message_is_the_same_change() -> None:
    bus = MemoryBus()
    await store(bus, SUBJECTS, status(message="one"))
    assert await store(bus, SUBJECTS, status(message="two")) == Stored(1, True, status(message="one"))


async def test_a_status_is_forgotten_after_a_week_and_a_completion_is_not() -> None:
    bus = MemoryBus()
    await store(bus, SUBJECTS, status())
    await store(bus, SUBJECTS, completion())
    bus.advance(STATUS_TTL + 1)
    assert [message.sequence for message in bus.messages()] == [2]


FOREIGN = {
    "noise": ({}, b"\xff"),
    "an event of another type": ({}, b'{"specversion":"1.0","id":"1","source":"s","type":"t"}'),
    "an event of another run": (encode(build(completion(run_uid="other"))).headers, encode(build(completion(run_uid="other"))).body),
    "an event of another kind": (encode(build(status())).headers, encode(build(status())).body),
}


@pytest.mark.parametrize(("headers", "body"), FOREIGN.values(), ids=FOREIGN.keys())
async def test_foreign_bytes_make_room_and_are_kept_as_dead_letters(
    headers: dict[str, str], body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    bus = MemoryBus()
    await bus.publish(bus_subject(SUBJECTS, completion()), body, headers | {"x": "y", "Nats-TTL": "1s"})
    with caplog.at_level(logging.WARNING):
        assert await store(bus, SUBJECTS, completion()) == Stored(2, False, completion(), displaced=1)
    assert "dead letters" in caplog.text
    [letter] = bus.messages("events.dead-letter.>")
    assert letter.subject == "events.dead-letter.kfp-operator-runs.1"
    assert letter.data == body
    assert letter.headers["x"] == "y"
    assert "Nats-TTL" not in letter.headers
    assert decode_value(letter.headers["kfp-operator-subject"]) == bus_subject(SUBJECTS, completion())
    assert "team-a/penguin-x7k2p" in decode_value(letter.headers["kfp-operator-reason"])
    [message] = bus.messages("events.run-completion.>")
    assert receive(SUBJECTS, message).data == completion()


@pytest.mark.parametrize(("broken", "after"), [("publish", 0), ("last", 0), ("publish", 1), ("delete", 0), ("publish", 2)])
@pytest.mark.parametrize("answer_lost", [False, True])
async def test_making_room_survives_a_failure_at_any_step(broken: str, after: int, answer_lost: bool) -> None:
    bus = MemoryBus()
    await bus.publish(bus_subject(SUBJECTS, completion()), b"noise", {})
    bus.fail(broken, answer_lost=answer_lost, after=after)
    with pytest.raises(BusUnavailable):
        await store(bus, SUBJECTS, completion())
    await store(bus, SUBJECTS, completion())
    assert [message.data for message in bus.messages("events.dead-letter.>")] == [b"noise"]
    assert len(bus.messages("events.run-completion.>")) == 1


async def test_the_newest_event_is_found_under_what_strangers_put_on_it() -> None:
    bus = MemoryBus()
    subject = bus_subject(SUBJECTS, completion())
    assert await newest(bus, SUBJECTS, subject) is None
    await store(bus, SUBJECTS, completion())
    for _ in range(3):
        await bus.publish(subject, b"noise", {})
    assert await newest(bus, SUBJECTS, "events.run-completion.team-a.*.*.1") == completion()
    assert len(bus.messages("events.dead-letter.>")) == 3
    assert len(bus.messages("events.run-completion.>")) == 1


async def test_a_message_that_vanished_before_it_was_read_back_is_no_obstacle() -> None:
    class Vanishing(MemoryBus):
        async def last(self, stream: str, subject: str) -> StoredMessage | None:
            if found := await super().last(stream, subject):
                await self.delete(stream, found.sequence)
            return None

    bus = Vanishing()
    await bus.publish(bus_subject(SUBJECTS, completion()), b"noise", {})
    assert await store(bus, SUBJECTS, completion()) == Stored(2, False, completion())


async def test_a_slot_that_is_filled_with_noise_again_and_again_is_an_error_that_says_so() -> None:
    class Noisy(MemoryBus):
        async def delete(self, stream: str, sequence: int) -> None:
            await super().delete(stream, sequence)
            await self.publish(bus_subject(SUBJECTS, completion()), b"noise", {})

    bus = Noisy()
    await bus.publish(bus_subject(SUBJECTS, completion()), b"noise", {})
    with pytest.raises(BusError, match="who else may publish"):
        await store(bus, SUBJECTS, completion())


async def test_a_missing_stream_is_told() -> None:
    bus = MemoryBus()
    bus.delete_stream("kfp-operator-runs")
    with pytest.raises(StreamMissing):
        await store(bus, SUBJECTS, completion())


# Dead letters


def foreign(data: bytes = b"noise", headers: dict[str, str] | None = None) -> StoredMessage:
    return StoredMessage("kfp-operator-runs", 7, "events.run-status.x", headers or {}, data, EPOCH)


async def test_a_dead_letter_is_kept_once() -> None:
    bus = MemoryBus()
    await dead_letter(bus, SUBJECTS, foreign(), "noise")
    await dead_letter(bus, SUBJECTS, foreign(), "noise")
    assert len(bus.messages()) == 1


async def test_a_stream_that_began_anew_does_not_hide_its_dead_letters() -> None:
    bus = MemoryBus()
    await dead_letter(bus, SUBJECTS, foreign(b"one"), "noise")
    await dead_letter(bus, SUBJECTS, foreign(b"two"), "noise")
    assert [message.data for message in bus.messages()] == [b"one", b"two"]


async def test_a_dead_letter_says_why_where_and_when() -> None:
    bus = MemoryBus()
    await dead_letter(bus, SUBJECTS, foreign(headers={"ok": "1", "bad name": "2", "nats-msg-id": "3"}), "no é\nat all " * 200)
    [letter] = bus.messages()
    assert set(letter.headers) == {"ok", "kfp-operator-reason", "kfp-operator-subject", "kfp-operator-time"}
    assert decode_value(letter.headers["kfp-operator-reason"]).startswith("no é\nat all ")
    assert all(value.isascii() and value.isprintable() for value in letter.headers.values())


async def test_a_dead_letter_of_any_size_can_be_kept() -> None:
    bus = MemoryBus()
    await dead_letter(bus, SUBJECTS, foreign(b"x" * 1_000_000), "large")
    await dead_letter(bus, SUBJECTS, foreign(b"x" * 1_000_000), "large")
    [letter] = bus.messages()
    assert len(letter.data) == 512 * 1024
    assert letter.headers["kfp-operator-truncated"] == "true"


# The documented subject


async def test_the_copy_for_plain_subscribers_is_stored_once() -> None:
    bus = MemoryBus()
    event = build(completion())
    assert await publish_documented(bus, SUBJECTS, event)
    assert not await publish_documented(bus, SUBJECTS, event)
    [message] = bus.messages()
    assert message.stream == "kfp-operator-documented"
    assert decode(message.headers, message.data).get_attributes() == event.get_attributes()


@pytest.mark.parametrize("mode", ["compatible", "structured", "binary"])
async def test_the_copy_is_in_the_chosen_content_mode(mode: str) -> None:
    bus = MemoryBus()
    await publish_documented(bus, SUBJECTS, build(completion()), mode)  # type: ignore[arg-type]  # parametrize loses the literal
    [message] = bus.messages()
    wire = encode(build(completion()), mode)  # type: ignore[arg-type]
    headers = dict(message.headers)
    assert headers.pop("Nats-Msg-Id") == event_id(completion())
    assert (headers, message.data) == (wire.headers, wire.body), "and no condition, which the delivery would bear too"


async def test_only_completions_are_copied() -> None:
    with pytest.raises(EventError, match="completion"):
        await publish_documented(MemoryBus(), SUBJECTS, build(status()))
