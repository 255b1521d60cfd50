"""Streams on a real server: made, mended, made again; what overlaps or is forbidden is named; and the documented subject."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import nats as nats_py
import pytest
from nats.aio.msg import Msg

from kfp_operator.errors import BusError, StreamMissing
from kfp_operator.events.envelope import build
from kfp_operator.events.jetstream import JetStreamBus
from kfp_operator.events.publisher import publish_documented, store
from kfp_operator.events.streams import StreamError, Streams
from kfp_operator.events.subjects import ROLES, Subjects
from kfp_operator.settings import EventsSettings
from tests.cluster import NatsServer
from tests.doubles.events import completion, status
from tests.integration.events.rigs import SUBJECTS, connected, until_connected
from tests.waiting import eventually_async

RUNS = "kfp-operator-runs"
DOCUMENTED = "kfp-operator-documented"
DAY = 86400 * 10**9


def streams(bus: JetStreamBus, subjects: Subjects = SUBJECTS, **settings: Any) -> Streams:
    return Streams(bus, subjects, EventsSettings(**settings))


async def config(bus: JetStreamBus, stream: str) -> dict[str, Any]:
    found: dict[str, Any] = (await bus.api(f"STREAM.INFO.{stream}"))["config"]
    return found


@pytest.fixture
async def empty(nats: NatsServer) -> AsyncIterator[JetStreamBus]:
    """A bus on a server without streams."""
    async with connected(nats) as one:
        yield one


@contextlib.asynccontextmanager
async def running(kept: Streams) -> AsyncIterator[None]:
    task = asyncio.create_task(kept.run())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def all_is_well(kept: Streams) -> None:
    await eventually_async(lambda: kept.problem == "", 10, "the streams are as they should be")


# Made and mended


async def test_streams_are_made_as_the_design_says(empty: JetStreamBus) -> None:
    await streams(empty, retention=10 * 86400, replay_window=1800).ensure()
    found = {role: await config(empty, SUBJECTS.stream(role)) for role in ROLES}
    assert {role: one["max_age"] for role, one in found.items()} == {
        "runs": 10 * DAY,
        "documented": 1800 * 10**9,
        "inbound": 7 * DAY,
        "dead-letter": 30 * DAY,
    }
    assert found["runs"]["subjects"] == [f"events.{kind}.>" for kind in ("run-completion", "run-status", "dag-completion", "dag-status")]
    assert found["runs"]["allow_msg_ttl"] is True
    assert {one["storage"] for one in found.values()} == {"file"}
    assert {one["retention"] for one in found.values()} == {"limits"}


async def test_looking_again_changes_nothing(empty: JetStreamBus, caplog: pytest.LogCaptureFixture) -> None:
    kept = streams(empty)
    await kept.ensure()
    before = [await config(empty, SUBJECTS.stream(role)) for role in ROLES]
    caplog.clear()
    with caplog.at_level(logging.INFO, "kfp_operator.events.streams"):
        await kept.ensure()
    assert caplog.messages == []
    assert [await config(empty, SUBJECTS.stream(role)) for role in ROLES] == before


async def test_fields_of_ours_are_mended_and_those_of_others_stay(empty: JetStreamBus) -> None:
    kept = streams(empty)
    await kept.ensure()
    changed = await config(empty, RUNS) | {"max_age": DAY, "max_bytes": 10**9, "description": "ours", "subjects": ["events.run-status.>"]}
    await empty.api(f"STREAM.UPDATE.{RUNS}", changed)
    await store(empty, SUBJECTS, status())
    await kept.ensure()
    found = await config(empty, RUNS)
    assert (found["max_age"], found["max_bytes"], found["description"]) == (30 * DAY, 10**9, "ours")
    assert "events.run-completion.>" in found["subjects"]
    assert await empty.last_sequence(RUNS) == 1


async def test_settings_that_change_are_applied_to_streams_that_exist(empty: JetStreamBus) -> None:
    await streams(empty).ensure()
    await streams(empty, replay_window=60.0).ensure()
    assert (await config(empty, DOCUMENTED))["max_age"] == 60 * 10**9
    await streams(empty, replay_window=7200.0).ensure()
    assert (await config(empty, DOCUMENTED))["max_age"] == 7200 * 10**9


async def test_what_cannot_be_changed_is_named(empty: JetStreamBus) -> None:
    wanted = streams(empty).wanted("runs")
    await empty.api(f"STREAM.CREATE.{RUNS}", wanted | {"storage": "memory"})
    with pytest.raises(StreamError, match=rf"{RUNS}.*storage"):
        await streams(empty).ensure()


async def test_two_operators_with_prefixes_of_their_own_share_a_server(empty: JetStreamBus) -> None:
    other = Subjects("mlops")
    await streams(empty).ensure()
    await streams(empty, other, prefix="mlops", documented_subject="mlops").ensure()
    await store(empty, other, completion())
    await store(empty, SUBJECTS, completion())
    assert await empty.last_sequence(other.stream("runs")) == 1
    assert await empty.last_sequence(RUNS) == 1


async def test_a_stream_that_is_deleted_is_made_again_and_publishing_goes_on(empty: JetStreamBus) -> None:
    kept = streams(empty)
    async with running(kept):
        await all_is_well(kept)
        await empty.api(f"STREAM.DELETE.{RUNS}")

        async def stored() -> bool:
            await store(empty, SUBJECTS, completion())
            return True

        done: bool = await eventually_async(stored, 10, "the completion is stored", ignoring=(StreamMissing,))
        assert done


async def test_streams_are_looked_at_when_the_server_comes_back_empty(nats: NatsServer) -> None:
    async with connected(nats) as bus:
        kept = streams(bus)
        async with running(kept):
            await all_is_well(kept)
            for role in ROLES:
                await bus.api(f"STREAM.DELETE.{SUBJECTS.stream(role)}")
            await asyncio.to_thread(nats.restart)
            await until_connected(bus)

            async def made() -> int:
                return len([await config(bus, SUBJECTS.stream(role)) for role in ROLES])

            count: int = await eventually_async(made, 10, "all streams are there", ignoring=(BusError,))
            assert count == 4


# What stands in the way


@pytest.mark.parametrize("subjects", [["events.>"], ["events.run-completion.team-a.>"], [">"], ["*.run-status.>"]])
async def test_a_users_stream_that_overlaps_is_named_with_the_remedy(empty: JetStreamBus, subjects: list[str]) -> None:
    await empty.api("STREAM.CREATE.everything", {"name": "everything", "subjects": subjects, "no_ack": subjects[0][0] in "*>"})
    kept = streams(empty)
    async with running(kept):
        await eventually_async(lambda: "everything" in kept.problem, 10, "the stream is named")
        assert f"stream {RUNS} cannot be made: stream everything stores events.run-" in kept.problem
        assert "narrow the subjects" in kept.problem
        await empty.api("STREAM.DELETE.everything")
        await all_is_well(kept)
    await store(empty, SUBJECTS, completion())


async def test_an_old_server_is_named(empty: JetStreamBus) -> None:
    empty.connection.server_version = "2.10.29"
    with pytest.raises(StreamError, match=r"2\.10\.29; 2\.11 or later"):
        await streams(empty).ensure()


async def test_more_replicas_than_servers_is_told(empty: JetStreamBus) -> None:
    with pytest.raises(StreamError, match="replicas"):
        await streams(empty, replicas=3).ensure()


# Streams that others manage


async def test_streams_of_others_are_only_looked_at(empty: JetStreamBus) -> None:
    kept = streams(empty, manage_streams=False)
    with pytest.raises(StreamError, match=rf"{RUNS} does not exist: make it with subjects events\.run-completion"):
        await kept.ensure()
    for role in ROLES:
        wanted = kept.wanted(role) | {"max_age": DAY, "storage": "memory"}
        await empty.api(f"STREAM.CREATE.{wanted['name']}", wanted)
    with pytest.raises(StreamError, match="documented-subject"):
        await kept.ensure()
    consumer = {"durable_name": "documented-subject", "deliver_subject": "events", "ack_policy": "none"}
    await empty.api(f"CONSUMER.CREATE.{DOCUMENTED}.documented-subject", {"stream_name": DOCUMENTED, "config": consumer})
    await kept.ensure()
    assert (await config(empty, RUNS))["max_age"] == DAY


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"subjects": ["events.run-status.>"]}, r"does not store .*events\.run-completion"),
        ({"allow_msg_ttl": False}, "allow_msg_ttl"),
        ({"retention": "workqueue"}, "must be limits"),
        ({"deny_delete": True}, "denies deletes"),
    ],
)
async def test_streams_of_others_that_cannot_serve_are_named(empty: JetStreamBus, change: dict[str, Any], said: str) -> None:
    kept = streams(empty, manage_streams=False)
    await empty.api(f"STREAM.CREATE.{RUNS}", kept.wanted("runs") | change)
    with pytest.raises(StreamError, match=said):
        await kept.ensure()


async def test_a_stream_of_others_may_store_more(empty: JetStreamBus) -> None:
    kept = streams(empty, manage_streams=False, documented_subject="")
    for role in ROLES:
        wanted = kept.wanted(role)
        if role == "inbound":
            wanted |= {"subjects": ["events.inbound.>", "events.provider.>", "alerts.>"]}
        await empty.api(f"STREAM.CREATE.{wanted['name']}", wanted)
    await kept.ensure()


# The documented subject


class Plain:
    """A plain core NATS subscriber: what Argo's EventSource is."""

    def __init__(self, subscription: Any, client: Any) -> None:
        self._subscription = subscription
        self._client = client

    async def take(self, within: float = 10.0) -> Msg:
        message: Msg = await self._subscription.next_msg(timeout=within)
        return message

    async def nothing(self, during: float = 0.5) -> bool:
        try:
            message = await self.take(during)
        except TimeoutError:
            return True
        raise AssertionError(f"unexpected: {message.subject}")

    async def leave(self) -> None:
        await self._subscription.unsubscribe()
        await self._client.flush()


@contextlib.asynccontextmanager
async def plain(server: NatsServer, subject: str = "events") -> AsyncIterator[Plain]:
    client = await nats_py.connect(server.url)
    subscription = await client.subscribe(subject)
    await client.flush()
    yield Plain(subscription, client)
    await client.close()


def status_of(message: Msg) -> str:
    return str(json.loads(message.data)["runUid"])


async def tell(bus: JetStreamBus, uid: str) -> None:
    await publish_documented(bus, SUBJECTS, build(completion(run_uid=uid)))


async def test_a_plain_subscriber_sees_each_completion_once(nats: NatsServer, bus: JetStreamBus) -> None:
    async with plain(nats) as one, plain(nats) as two:
        for _ in range(3):  # the projector may tell it again after a crash
            await tell(bus, "a")
        await tell(bus, "b")
        for subscriber in (one, two):
            assert [status_of(await subscriber.take()) for _ in range(2)] == ["a", "b"]
            assert await subscriber.nothing()


async def test_a_plain_subscriber_catches_up_after_it_was_away(nats: NatsServer, bus: JetStreamBus) -> None:
    await tell(bus, "before anyone listened")
    async with plain(nats) as subscriber:
        assert status_of(await subscriber.take()) == "before anyone listened"
    await tell(bus, "while away 1")
    await tell(bus, "while away 2")
    async with plain(nats) as subscriber:
        assert [status_of(await subscriber.take()) for _ in range(2)] == ["while away 1", "while away 2"]
        assert await subscriber.nothing()


async def test_a_plain_subscriber_gets_its_events_over_a_restart_of_the_server(nats: NatsServer, bus: JetStreamBus) -> None:
    await tell(bus, "before")
    await asyncio.to_thread(nats.restart)
    await until_connected(bus)
    async with plain(nats) as subscriber:
        assert status_of(await subscriber.take()) == "before"


async def test_what_is_delivered_does_not_come_back_in(nats: NatsServer, bus: JetStreamBus) -> None:
    async with plain(nats) as subscriber:
        await tell(bus, "a")
        await subscriber.take()
        assert await subscriber.nothing()
    total = 0
    for name in (await bus.api("STREAM.NAMES"))["streams"]:
        total += (await bus.api(f"STREAM.INFO.{name}"))["state"]["messages"]
    assert total == 1


async def test_the_documented_message_is_json_with_both_spellings(nats: NatsServer, bus: JetStreamBus) -> None:
    async with plain(nats) as subscriber:
        await tell(bus, "a")
        message = await subscriber.take()
    body = json.loads(message.data)
    assert body["status"] == body["data"]["status"] == "succeeded"
    assert message.headers is not None
    assert message.headers["ce-type"] == "org.kubeflow.pipelines.run-completion"
    assert message.subject == "events.documented.team-a.penguin-x7k2p.a.1"


async def test_a_push_consumer_that_is_deleted_is_made_again_without_telling_twice(nats: NatsServer, bus: JetStreamBus) -> None:
    kept = streams(bus)
    async with plain(nats) as subscriber:
        await tell(bus, "a")
        await subscriber.take()
        await kept.ensure()
        await bus.api(f"CONSUMER.DELETE.{DOCUMENTED}.documented-subject")
        await tell(bus, "b")
        await kept.ensure()
        assert status_of(await subscriber.take()) == "b"
        assert await subscriber.nothing()


async def test_the_documented_subject_can_be_changed_and_turned_off(nats: NatsServer, bus: JetStreamBus) -> None:
    await streams(bus, documented_subject="mlops.runs").ensure()
    async with plain(nats, "mlops.runs") as subscriber:
        await tell(bus, "a")
        assert status_of(await subscriber.take()) == "a"
    await streams(bus, documented_subject="").ensure()
    async with plain(nats, "mlops.runs") as one, plain(nats) as two:
        await tell(bus, "b")
        assert await one.nothing(0.3)
        assert await two.nothing(0.1)


async def test_a_users_stream_on_the_documented_subject_may_keep_what_it_hears(nats: NatsServer, bus: JetStreamBus) -> None:
    await bus.api("STREAM.CREATE.team-a", {"name": "team-a", "subjects": ["events"]})
    await tell(bus, "a")
    await tell(bus, "b")  # a condition on the first would refuse this one

    async def kept() -> int:
        sequence = await bus.last_sequence("team-a")
        assert sequence == 2
        return sequence

    count: int = await eventually_async(kept, 10, "the user's stream holds them")
    assert count == 2
