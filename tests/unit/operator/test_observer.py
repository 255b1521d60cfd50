"""Completions of runs without a Run object: each once, none of before observing began, over kills and outages."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from kfp_operator.api.provider import Provider as ProviderResource
from kfp_operator.api.run import ArtifactDefinition
from kfp_operator.errors import Permanent, ProviderError, Retryable
from kfp_operator.events import envelope
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.observer import KEPT_EVERY, Observer
from kfp_operator.operator.outbox import Outbox
from kfp_operator.operator.store import Key, Store
from kfp_operator.providers.protocol import ComponentArtifact, Observed, RunUpdate
from kfp_operator.schemas import RunCompletion
from tests import builders as b
from tests.doubles.bus import MemoryBus
from tests.doubles.objects import SimulatedObjects
from tests.doubles.world import Fate
from tests.waiting import eventually_async as until

KEY = Key("Provider", "mlops", "local")
MODEL = ComponentArtifact("train", "model", "system.Model", "s3://b/m", {"serving": True})


class Server:
    """A backend with runs of others, and the part of a provider that tells of them."""

    def __init__(self) -> None:
        self.now = b.NOW
        self.artifacts_wanted: Sequence[ArtifactDefinition] = (ArtifactDefinition(name="model", path="train:model"),)
        self.ended: list[RunUpdate] = []
        self.found: Sequence[ComponentArtifact] | ProviderError = (MODEL,)
        self.watch_error: Exception | None = None
        self.asked_since: list[datetime] = []
        self.news = asyncio.Event()

    def end(self, run_id: str, *states: str, **changes: Any) -> None:
        """A run ends now."""
        seconds = (self.now - b.NOW).total_seconds()
        names = Observed(f"run {run_id}", "team/train", b.VERSION, "tests")
        given = b.update(*(states or ("succeeded",)), seconds=seconds, submission_id=run_id, provider_id=run_id, observed=names)
        self.ended.append(replace(given, **changes))
        self.news.set()

    # providers.protocol.Observing

    @property
    def artifacts(self) -> Sequence[ArtifactDefinition]:
        return self.artifacts_wanted

    async def watch(self, since: datetime) -> AsyncIterator[RunUpdate | datetime]:
        self.asked_since.append(since)
        told: set[tuple[str, int]] = set()
        while True:
            self.news.clear()
            for update in self.ended:
                key = (update.submission_id, update.attempt)
                assert update.end_time is not None
                if key not in told and update.end_time >= since:
                    told.add(key)
                    yield update
            yield self.now - timedelta(minutes=5)
            if self.watch_error is not None:
                raise self.watch_error
            await self.news.wait()


class Backend:
    """The provider around it."""

    def __init__(self, server: Server) -> None:
        self.others: Server | None = server
        self._server = server

    async def artifacts(self, submission_id: str) -> Sequence[ComponentArtifact]:
        if isinstance(self._server.found, ProviderError):
            raise self._server.found
        return self._server.found


class World:
    """What stays when an operator process ends."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.server = Server()
        self.objects = SimulatedObjects(Fate(), b.NOW)
        self.objects.put(b.provider().resource)
        self.paused = 0.0

    @property
    def observed_until(self) -> datetime | None:
        found = self.objects.objects[KEY]
        assert isinstance(found, ProviderResource)
        return found.status.observed_until

    def completions(self) -> list[RunCompletion]:
        found = [envelope.receive(self.bus.subjects, m).data for m in self.bus.messages("events.run-completion.>")]
        return [data for data in found if isinstance(data, RunCompletion)]

    def told(self) -> list[tuple[str, int, str]]:
        return [(data.run_id, data.attempt, data.state) for data in self.completions()]

    async def pause(self, seconds: float) -> None:
        self.paused += seconds
        self.server.now += timedelta(seconds=seconds)
        await asyncio.sleep(0)

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[None]:
        """A process, killed at the end."""
        outbox = Outbox(self.bus, self.bus.subjects, mode=None, metrics=Metrics(), guard=lambda: None, now=lambda: self.server.now)
        store = Store(b.NAMES)
        self.objects.list(store)
        observer = Observer(
            store=store,
            objects=self.objects,
            outbox=outbox,
            guard=lambda: None,
            now=lambda: self.server.now,
            artifact_deadline=timedelta(minutes=10),
            pause=self.pause,
        )
        task = asyncio.create_task(observer.observe("mlops/local", Backend(self.server)))  # type: ignore[arg-type]
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def eventually(condition: Callable[[], object], what: str) -> None:
    await until(condition, 5, what)


async def test_the_end_of_a_run_of_others_is_told_with_all_that_is_known() -> None:
    world = World()
    async with world.operator():
        await eventually(lambda: world.observed_until, "it observes")
        world.server.end("r1", "running", "succeeded", url="https://kfp/r1")
        await eventually(world.completions, "it is told")
    (data,) = world.completions()
    assert (data.run_name, data.run_uid, data.run_id, data.provider) == ("", "", "r1", "mlops/local")
    assert (data.pipeline_name, data.pipeline_version, data.experiment_name) == ("team/train", b.VERSION, "tests")
    assert [(a.name, a.location) for a in data.artifacts] == [("model", "s3://b/m")]
    assert [(s.name, s.location) for s in data.serving_model_artifacts] == [("train:r1:train:model:0", "s3://b/m")]
    assert (data.status, data.url, data.artifacts_complete) == ("succeeded", "https://kfp/r1", True)
    (message,) = world.bus.messages("events.run-completion.mlops.local.r1.1")
    event = envelope.receive(world.bus.subjects, message).event
    assert (event.get_id(), event.get_subject(), event.get_source()) == ("r1.1.completion", "r1", "mlops/local")


async def test_what_ended_before_observing_began_is_no_news_and_when_that_was_is_kept_first() -> None:
    world = World()
    world.server.end("before")
    world.server.now += timedelta(hours=1)
    async with world.operator():
        await eventually(lambda: world.server.asked_since, "it looks")
        assert world.observed_until == world.server.asked_since[0] == b.NOW + timedelta(hours=1)
        world.server.end("after")
        await eventually(world.completions, "it is told")
    assert world.told() == [("after", 1, "succeeded")]


async def test_what_ends_while_no_operator_runs_is_told_by_the_next_one_once() -> None:
    world = World()
    async with world.operator():
        await eventually(lambda: world.observed_until, "it observes")
        world.server.end("r1")
        await eventually(world.completions, "it is told")
    world.server.now += timedelta(hours=1)
    world.server.end("r2")
    world.server.now += timedelta(hours=1)
    async with world.operator():
        await eventually(lambda: len(world.completions()) == 2, "the other is told")
    assert world.told() == [("r1", 1, "succeeded"), ("r2", 1, "succeeded")]


async def test_the_time_that_is_kept_never_passes_an_end_that_is_not_told() -> None:
    world = World()
    async with world.operator():
        await eventually(lambda: world.observed_until, "it observes")
        world.bus.down = True
        ended = world.server.now
        world.server.end("r1")
        for _ in range(20):
            world.server.now += KEPT_EVERY
            world.server.news.set()
            await asyncio.sleep(0)
        assert world.observed_until is not None
        assert world.observed_until <= ended
    world.bus.down = False
    async with world.operator():
        await eventually(world.completions, "it is told")
        world.server.now += timedelta(hours=1)
        world.server.news.set()
        await eventually(lambda: world.observed_until is not None and world.observed_until > ended, "the time moves on")


async def test_an_outage_of_the_bus_is_waited_out() -> None:
    world = World()
    async with world.operator():
        await eventually(lambda: world.observed_until, "it observes")
        world.bus.fail("publish", times=3)
        world.server.end("r1")
        await eventually(world.completions, "it is told")
    assert world.told() == [("r1", 1, "succeeded")]


async def test_a_watch_that_breaks_goes_on_from_what_is_kept() -> None:
    world = World()
    async with world.operator():
        await eventually(lambda: world.observed_until, "it observes")
        world.server.watch_error = Retryable("the server does not answer")
        world.server.end("r1")
        await eventually(lambda: len(world.server.asked_since) >= 3, "it tries again")
        world.server.watch_error = None
        world.server.end("r2")
        await eventually(lambda: len(world.completions()) == 2, "both are told")
    assert sorted(world.told()) == [("r1", 1, "succeeded"), ("r2", 1, "succeeded")]
    assert len(set(world.server.asked_since)) == 1


@pytest.mark.parametrize("error", [Retryable("not yet"), Permanent("never")])
async def test_artifacts_that_are_not_known_in_time_are_told_as_missing(error: ProviderError) -> None:
    world = World()
    world.server.found = error
    async with world.operator():
        await eventually(lambda: world.observed_until, "it observes")
        world.server.end("r1")
        await eventually(world.completions, "it is told")
    (data,) = world.completions()
    assert (data.artifacts_complete, data.artifacts) == (False, [])
    assert str(error) in data.message
    assert (world.paused >= 600) is isinstance(error, Retryable)


async def test_a_failed_run_is_told_with_its_reason_and_without_waiting_for_artifacts() -> None:
    world = World()
    world.server.found = Retryable("not yet")
    async with world.operator():
        await eventually(lambda: world.observed_until, "it observes")
        world.server.end("r1", "running", "failed", message="step act failed", failed_task="act")
        await eventually(world.completions, "it is told")
    (data,) = world.completions()
    assert (data.status, data.state, data.failed_task, data.message) == ("failed", "failed", "act", "step act failed")


async def test_each_attempt_is_told() -> None:
    world = World()
    async with world.operator():
        await eventually(lambda: world.observed_until, "it observes")
        world.server.end("r1", "failed")
        world.server.end("r1", "succeeded", attempt=2)
        await eventually(lambda: len(world.completions()) == 2, "both are told")
    assert sorted(world.told()) == [("r1", 1, "failed"), ("r1", 2, "succeeded")]


async def test_a_provider_that_observes_no_longer_forgets_where_it_was() -> None:
    world = World()
    async with world.operator():
        await eventually(lambda: world.observed_until, "it observes")
    store = Store(b.NAMES)
    world.objects.list(store)
    outbox = Outbox(world.bus, world.bus.subjects, mode=None, metrics=Metrics(), guard=lambda: None, now=lambda: b.NOW)
    observer = Observer(
        store=store, objects=world.objects, outbox=outbox, guard=lambda: None, now=lambda: b.NOW, artifact_deadline=timedelta(minutes=10)
    )
    backend = Backend(world.server)
    backend.others = None
    await observer.observe("mlops/local", backend)  # type: ignore[arg-type]
    assert world.observed_until is None


@pytest.mark.parametrize("seed", range(25))
async def test_whenever_the_operator_is_killed_each_end_is_told_once(seed: int) -> None:
    chance, world = random.Random(seed), World()
    ids = [f"r{number}" for number in range(30)]
    left = list(ids)
    async with world.operator():
        await eventually(lambda: world.observed_until, "it observes")
    while left:
        async with world.operator():
            for _ in range(chance.randrange(4)):
                if left:
                    world.server.end(left.pop(0))
                world.server.now += timedelta(minutes=chance.choice([0, 1, 7, 30]))
                if chance.random() < 0.2:
                    world.bus.fail("publish", answer_lost=chance.random() < 0.5)
                for _ in range(chance.randrange(30)):
                    await asyncio.sleep(0)
        if left and chance.random() < 0.5:
            world.server.end(left.pop(0))
        world.server.now += timedelta(minutes=chance.choice([0, 3, 60]))
    async with world.operator():
        await eventually(lambda: len(world.completions()) == len(ids), "all are told")
    assert sorted(world.told()) == sorted((run_id, 1, "succeeded") for run_id in ids)
