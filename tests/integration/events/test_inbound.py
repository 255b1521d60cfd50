"""Events from outside on a real server: stored once, whoever brings them and however often, and refused in good order while it is away."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import nats as nats_py
import pytest
import yaml

from kfp_operator.errors import BusUnavailable, EventError, StreamMissing
from kfp_operator.events import binding, inbound
from kfp_operator.events.inbound import Inbound
from kfp_operator.events.jetstream import JetStreamBus
from kfp_operator.operator.inbound_server import InboundServer
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.ports import utc_now
from kfp_operator.schemas import V1EventKind
from kfp_operator.settings import InboundSettings
from tests.cluster import NatsServer
from tests.doubles.inbound_port import event as document
from tests.integration.events.rigs import SUBJECTS, Reader, connected
from tests.waiting import eventually_async

STREAM = SUBJECTS.stream("inbound")
PATTERN = "events.inbound.>"
TOKEN = "a-token-for-tests"


def made(id_: str = "1", **payload: object) -> Inbound:
    return inbound.make("team-a", V1EventKind.ALERT_INFO, "alerts.Drift", payload, source="/s", id_=id_)


async def stored(bus: JetStreamBus) -> int:
    return int((await bus.api(f"STREAM.INFO.{STREAM}"))["state"]["messages"])


async def test_of_many_at_the_same_time_one_is_stored(nats: NatsServer, bus: JetStreamBus) -> None:
    async with connected(nats) as other:
        results = await asyncio.gather(*(inbound.store(one, SUBJECTS, made()) for one in [bus, other] * 20))
    assert sorted(one.already for one in results) == [False] + [True] * 39
    assert await stored(bus) == 1


async def test_a_consumer_reads_what_was_stored_and_tells_junk_apart(nats: NatsServer, bus: JetStreamBus) -> None:
    await inbound.store(bus, SUBJECTS, made(value=3))
    client = await nats_py.connect(nats.url)
    jetstream = client.jetstream()
    await jetstream.publish(
        "events.inbound.team-a.alert_info", json.dumps(document(data={"ref": "alerts.x", "kind": "alert_info"})).encode()
    )
    await jetstream.publish("events.inbound.team-a.alert_info.junk", b"\xff")
    await jetstream.publish("events.inbound.team-a.run_status_done", json.dumps(document(data={"kind": "run_status_done"})).encode())
    await client.close()
    reader = Reader(bus.consume(STREAM, "triggers", subjects=[PATTERN]))
    read, refused = [], 0
    for delivery in await reader.take_all(4):
        try:
            read.append(inbound.receive(SUBJECTS, delivery.message))
        except EventError:
            refused += 1
        await delivery.ack()
    await reader.close()
    assert [(one.namespace, one.data.ref) for one in read] == [("team-a", "alerts.Drift"), ("team-a", "alerts.x")]
    assert refused == 2


async def test_the_largest_event_fits(bus: JetStreamBus) -> None:
    room = 64 * 1024 - len(json.dumps({"ref": "alerts.Drift", "kind": "alert_info", "x": ""}, separators=(",", ":")))
    found = await inbound.store(bus, SUBJECTS, made(x="a" * room))
    message = await bus.last(STREAM, found.subject)
    assert message is not None
    assert inbound.receive(SUBJECTS, message).data.payload == {"x": "a" * room}


async def test_while_the_server_is_away_it_is_said_and_later_it_is_stored_once(nats: NatsServer, bus: JetStreamBus) -> None:
    await inbound.store(bus, SUBJECTS, made())
    nats.kill()
    with pytest.raises(BusUnavailable):
        await inbound.store(bus, SUBJECTS, made("2"))
    nats.start()
    await eventually_async(lambda: bus.connected, 20, "the bus is back")
    assert not (await inbound.store(bus, SUBJECTS, made("2"))).already
    assert (await inbound.store(bus, SUBJECTS, made())).already


async def test_without_the_stream_nothing_is_lost_in_silence(bus: JetStreamBus) -> None:
    await bus.api(f"STREAM.DELETE.{STREAM}")
    with pytest.raises(StreamMissing):
        await inbound.store(bus, SUBJECTS, made())


@asynccontextmanager
async def replicas(server: NatsServer, folder: Path, count: int) -> AsyncIterator[list[str]]:
    """The addresses of several ports for events, each of a process of its own as far as NATS can tell."""
    file = folder / "senders.yaml"
    token = {"name": "test", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest(), "namespaces": ["team-a"]}
    file.write_text(yaml.safe_dump({"tokens": [token]}))
    settings = InboundSettings(port=0, tokens_file=file)
    async with AsyncExitStack() as stack:
        urls = []
        for _ in range(count):
            bus = await stack.enter_async_context(connected(server))
            port = InboundServer(settings, bus=bus, subjects=SUBJECTS, metrics=Metrics(), now=utc_now)
            await stack.enter_async_context(port.serving("127.0.0.1"))
            urls.append(f"http://127.0.0.1:{port.port}/v1/events")
        yield urls


async def post(client: aiohttp.ClientSession, url: str, id_: str = "7") -> tuple[int, bool]:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": binding.STRUCTURED_TYPE}
    async with client.post(url, json=document(id=id_), headers=headers) as response:
        answer = await response.json(content_type=None)
        return response.status, response.status == 202 and bool(answer["events"][0]["duplicate"])


async def test_replicas_store_the_same_event_once(nats: NatsServer, bus: JetStreamBus, tmp_path: Path) -> None:
    async with replicas(nats, tmp_path, 2) as urls, aiohttp.ClientSession() as client:
        answers = await asyncio.gather(*(post(client, url) for url in urls * 10))
    assert sorted(answers) == [(202, False)] + [(202, True)] * 19
    assert await stored(bus) == 1


async def test_a_sender_that_comes_again_loses_nothing_over_an_outage(nats: NatsServer, bus: JetStreamBus, tmp_path: Path) -> None:
    async with replicas(nats, tmp_path, 1) as (url,), aiohttp.ClientSession() as client:
        assert await post(client, url, "1") == (202, False)
        nats.kill()
        assert (await post(client, url, "2"))[0] == 503
        nats.start()

        async def accepted() -> bool:
            return (await post(client, url, "2"))[0] == 202

        await eventually_async(accepted, 20, "events are taken again")
        assert await post(client, url, "1") == (202, True)
    await eventually_async(lambda: bus.connected, 20, "the bus is back")
    assert await stored(bus) == 2
