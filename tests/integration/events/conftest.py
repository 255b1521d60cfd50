"""Buses for tests of events."""

from collections.abc import AsyncIterator, Iterator

import pytest

from kfp_operator.events.jetstream import JetStreamBus
from kfp_operator.events.streams import Streams
from kfp_operator.settings import EventsSettings
from tests.cluster import NatsServer
from tests.integration.events.rigs import SUBJECTS, JetStreamRig, MemoryRig, Rig, connected


@pytest.fixture(scope="module")
def shared_server() -> Iterator[NatsServer]:
    """One NATS server for tests that leave it running."""
    with NatsServer() as server:
        yield server


@pytest.fixture(params=["memory", "jetstream"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """Either bus, empty."""
    if request.param == "memory":
        yield MemoryRig()
        return
    async with connected(request.getfixturevalue("shared_server")) as bus:
        real = JetStreamRig(bus)
        await real.make_streams()
        yield real
        for name in (await bus.api("STREAM.NAMES"))["streams"] or []:
            await bus.api(f"STREAM.DELETE.{name}")


@pytest.fixture
async def bus(nats: NatsServer) -> AsyncIterator[JetStreamBus]:
    """A bus on a server of its own, with its streams."""
    async with connected(nats) as one:
        await Streams(one, SUBJECTS, EventsSettings()).ensure()
        yield one
