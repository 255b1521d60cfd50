"""What arrives while a status is being written: on an event loop, because the protocol's model takes one step at a time."""

import asyncio
from datetime import timedelta
from typing import Any

from kfp_operator.api.run import Run
from kfp_operator.errors import ClusterUnavailable
from kfp_operator.events import publisher
from kfp_operator.events.binding import ContentMode
from kfp_operator.events.bus import Delivery
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.outbox import Outbox
from kfp_operator.operator.projector import DURABLE, GATHER, AsyncioTimers, Projector, Record
from kfp_operator.operator.store import Store
from kfp_operator.schemas import RunCompletion, RunStatus
from tests import builders
from tests.doubles.bus import MemoryBus
from tests.doubles.world import Fate, SimulatedApi, unrecorded
from tests.unit.operator.simulated_time import run, until


class SlowApi(SimulatedApi):
    """An API server whose answers to status writes wait for `go`."""

    def __init__(self) -> None:
        super().__init__(Fate(), lambda: builders.NOW)
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def patch_status(self, resource: Any, status: Any) -> Any:
        self.asked.set()
        await self.go.wait()
        return await super().patch_status(resource, status)


class Desk:
    """A projector with its surroundings, and one Run that is bound."""

    def __init__(self, record: Record = unrecorded, *, mode: ContentMode | None = None) -> None:
        self.bus, self.api, self.store = MemoryBus(), SlowApi(), Store(builders.NAMES)
        self.api.create(builders.run(bound=True))
        [self.key] = self.api.runs
        self.store.put(self.run)
        self.metrics = metrics = Metrics()
        outbox = Outbox(self.bus, self.bus.subjects, mode=mode, metrics=metrics, guard=lambda: None, now=lambda: builders.NOW)
        self.projector = Projector(
            subjects=self.bus.subjects,
            store=self.store,
            objects=self.api,
            outbox=outbox,
            metrics=metrics,
            guard=lambda: None,
            now=lambda: builders.NOW,
            timers=AsyncioTimers(),
            names=builders.NAMES,
            replay_window=timedelta(hours=1),
            saw=lambda *_: None,
            record=record,
            wake=lambda _: None,
        )

    @property
    def run(self) -> Run:
        return self.api.runs[self.key]

    async def arrive(self, data: RunStatus | RunCompletion) -> Delivery:
        """Publish an event and hand it to the projector."""
        await publisher.store(self.bus, self.bus.subjects, data)
        delivery = self.bus.poll(self.bus.subjects.stream("runs"), DURABLE)
        assert delivery is not None
        await self.projector.accept(delivery)
        return delivery


def status(state: str, transition: int) -> RunStatus:
    return RunStatus(
        provider="mlops/local",
        pipeline_name="team/train",
        run_name="team/train-1",
        run_uid="uid-1",
        run_id="r-1",
        attempt=1,
        transition=transition,
        state=state,
        time=builders.at(transition),
    )


def completion() -> RunCompletion:
    return RunCompletion(
        provider="mlops/local",
        status="succeeded",
        state="succeeded",
        pipeline_name="team/train",
        run_name="team/train-1",
        run_uid="uid-1",
        run_id="r-1",
        attempt=1,
        run_end_time=builders.at(9),
    )


def test_a_completion_that_arrives_while_the_status_before_it_is_written_is_not_left_behind() -> None:
    async def main() -> None:
        desk = Desk()
        await desk.arrive(status("running", 1))
        await until(desk.api.asked.is_set, within=GATHER + 1)
        await desk.arrive(completion())
        await asyncio.sleep(1)  # the write is slow
        desk.api.go.set()
        await until(lambda: desk.run.status.completion_state == "Succeeded", within=1)
        assert desk.projector.pending == 0

    run(main())


def observed() -> RunCompletion:
    """A completion of a run that others started."""
    return completion().model_copy(update={"run_name": "", "run_uid": ""})


def test_a_completion_without_a_run_object_is_copied_counted_and_acknowledged() -> None:
    async def main() -> None:
        desk = Desk(mode="compatible")
        await desk.arrive(observed())
        assert [m.subject for m in desk.bus.messages("events.documented.>")] == ["events.documented.mlops.local.r-1.1"]
        assert desk.metrics.projected.labels(result="observed")._value.get() == 1
        assert not desk.api.asked.is_set()
        desk.bus.advance(60)
        assert desk.bus.poll(desk.bus.subjects.stream("runs"), DURABLE) is None, "it was delivered again"

    run(main())


def test_a_completion_without_a_run_object_comes_again_while_its_copy_cannot_be_stored() -> None:
    async def main() -> None:
        desk = Desk(mode="compatible")
        desk.bus.fail("publish", after=1)
        await desk.arrive(observed())
        assert desk.bus.messages("events.documented.>") == []
        desk.bus.advance(60)
        again = desk.bus.poll(desk.bus.subjects.stream("runs"), DURABLE)
        assert again is not None
        await desk.projector.accept(again)
        assert len(desk.bus.messages("events.documented.>")) == 1

    run(main())


def test_what_arrives_while_a_write_fails_is_written_with_it() -> None:
    async def main() -> None:
        desk = Desk()
        await desk.arrive(status("running", 1))
        await until(desk.api.asked.is_set, within=GATHER + 1)
        await desk.arrive(completion())
        await asyncio.sleep(1)
        desk.api.fate.lose.add("api")
        desk.api.go.set()
        await until(lambda: desk.run.status.completion_state == "Succeeded", within=5)

    run(main())


def test_deliveries_that_wait_for_a_write_are_not_delivered_again() -> None:
    async def main() -> None:
        desk = Desk()
        await desk.arrive(completion())
        for _ in range(30):
            await asyncio.sleep(1)
            desk.bus.advance(1)
            assert desk.bus.poll(desk.bus.subjects.stream("runs"), DURABLE) is None, "it was delivered again"
        desk.api.go.set()
        await until(lambda: desk.projector.pending == 0, within=1)

    run(main())


def test_an_end_is_recorded_after_the_runs_status_and_before_it_is_acknowledged() -> None:
    async def main() -> None:
        told: list[tuple[str, bool]] = []
        failures = [ClusterUnavailable("down"), ClusterUnavailable("down")]

        async def record(event: RunCompletion, *, news: bool) -> None:
            assert desk.run.status.completion_state == "Succeeded"
            assert desk.projector.pending == 1
            told.append((event.run_name, news))
            if failures:
                raise failures.pop()

        desk = Desk(record)
        desk.api.go.set()
        await desk.arrive(completion())
        await until(lambda: desk.projector.pending == 0, within=30)
        assert told == [("team/train-1", True)] * 3, "what this process has made of it is still news when it is tried again"
        assert not desk.bus._streams[desk.bus.subjects.stream("runs")].consumers[DURABLE].pending

    run(main())


def test_an_end_that_the_status_shows_already_is_recorded_as_no_news() -> None:
    async def main() -> None:
        told: list[bool] = []

        async def record(event: RunCompletion, *, news: bool) -> None:
            told.append(news)

        desk = Desk(record)
        desk.api.go.set()
        for _ in range(2):
            desk.projector.take(completion())
            await until(lambda: desk.projector.pending == 0, within=5)
        assert told == [True, False]

    run(main())
