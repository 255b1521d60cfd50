"""How ends of runs get into the status of the configuration that made them: together, once, and before anybody says that they have."""

import asyncio
from typing import Any

import pytest

from kfp_operator.api.meta import Model
from kfp_operator.api.run_configuration import RunConfiguration
from kfp_operator.errors import ClusterError, ClusterUnavailable, Conflict, Unprocessable
from kfp_operator.operator.configuration_projector import ConfigurationProjector
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.store import Key, Store
from kfp_operator.schemas import RunCompletion
from tests import builders
from tests.builders import NAMES
from tests.doubles.configurations import completion
from tests.doubles.objects import SimulatedObjects
from tests.doubles.world import Fate

BASE = Key("RunConfiguration", "team", "base")


class SlowObjects(SimulatedObjects):
    """An API server whose answers to status writes wait for `go`, and fail as told."""

    def __init__(self) -> None:
        super().__init__(Fate(), builders.NOW)
        self.go = asyncio.Event()
        self.go.set()
        self.asked = asyncio.Event()
        self.failures: list[ClusterError] = []
        self.written: list[Any] = []

    async def patch_status(self, resource: Any, status: Model) -> Any:
        self.asked.set()
        await self.go.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.written.append(status)
        return await super().patch_status(resource, status)


class Desk:
    """A projector, and a configuration that another follows."""

    def __init__(self) -> None:
        self.api, self.store, self.woken, self.metrics = SlowObjects(), Store(NAMES), list[Key](), Metrics()
        self.projector = ConfigurationProjector(
            store=self.store, objects=self.api, metrics=self.metrics, guard=lambda: None, wake=self.woken.append
        )
        self.api.put(builders.configuration("base"))
        self.api.put(builders.configuration(triggers={"runConfigurations": ["base"]}))
        self.api.list(self.store)

    @property
    def base(self) -> RunConfiguration:
        found = self.api.objects[BASE]
        assert isinstance(found, RunConfiguration)
        return found

    @property
    def recorded(self) -> list[str]:
        return [entry.name for entry in self.base.status.recent_runs]

    def end(self, name: str, **changes: Any) -> RunCompletion:
        return completion(self.base, name, **changes)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_an_end_is_recorded_and_who_follows_is_woken(desk: Desk) -> None:
    await desk.projector.record(desk.end("base-1"), news=True)
    assert desk.recorded == ["base-1"]
    assert set(desk.woken) == {BASE, Key("RunConfiguration", "team", "nightly")}
    stored = desk.store.get(BASE)
    assert isinstance(stored, RunConfiguration)
    assert [entry.name for entry in stored.status.recent_runs] == ["base-1"], "who is woken must see it"


async def test_a_run_that_no_configuration_made_asks_for_nothing(desk: Desk) -> None:
    desk.api.failures = [ClusterUnavailable("down")]
    await desk.projector.record(desk.end("x").model_copy(update={"run_configuration_name": ""}), news=True)
    assert not desk.woken


async def test_ends_that_arrive_during_a_write_are_written_together(desk: Desk) -> None:
    desk.api.go.clear()
    first = asyncio.create_task(desk.projector.record(desk.end("base-0"), news=True))
    await desk.api.asked.wait()
    others = [asyncio.create_task(desk.projector.record(desk.end(f"base-{n}", seconds=n), news=True)) for n in range(1, 101)]
    await asyncio.sleep(0)
    assert not first.done()
    desk.api.go.set()
    await asyncio.gather(first, *others)
    assert desk.api.status_writes[BASE] == 2
    assert desk.base.status.recent_runs[-1].number == 101
    assert not desk.projector._desks, "nothing is kept of a configuration that nothing happens to"


async def test_a_failed_write_fails_for_all_that_were_in_it_and_is_tried_again_by_them(desk: Desk) -> None:
    desk.api.go.clear()
    first = asyncio.create_task(desk.projector.record(desk.end("base-0"), news=True))
    await desk.api.asked.wait()
    others = [asyncio.create_task(desk.projector.record(desk.end(f"base-{n}", seconds=n), news=True)) for n in range(1, 4)]
    await asyncio.sleep(0)
    desk.api.failures = [ClusterUnavailable("down"), ClusterUnavailable("down")]
    desk.api.go.set()
    results = await asyncio.gather(first, *others, return_exceptions=True)
    assert [type(result) for result in results] == [ClusterUnavailable] * 4
    assert desk.recorded == []
    await asyncio.gather(*(desk.projector.record(desk.end(f"base-{n}", seconds=n), news=True) for n in range(4)))
    assert sorted(desk.recorded) == [f"base-{n}" for n in range(4)]


async def test_one_that_is_cancelled_does_not_leave_the_others_waiting(desk: Desk) -> None:
    desk.api.go.clear()
    first = asyncio.create_task(desk.projector.record(desk.end("base-0"), news=True))
    await desk.api.asked.wait()
    second = asyncio.create_task(desk.projector.record(desk.end("base-1"), news=True))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    desk.api.go.set()
    await second
    assert desk.recorded == ["base-1"]


async def test_a_conflict_is_looked_at_again(desk: Desk) -> None:
    desk.api.put(desk.base, annotations={"touched": "1"})  # the store does not know yet
    desk.api.failures = [Conflict("changed", status=409)]
    await desk.projector.record(desk.end("base-1"), news=True)
    assert desk.recorded == ["base-1"]
    assert desk.base.metadata.annotations == {"touched": "1"}


async def test_a_configuration_that_keeps_changing_is_tried_again_later(desk: Desk) -> None:
    desk.api.failures = [Conflict("changed", status=409)] * 10
    with pytest.raises(Conflict):
        await desk.projector.record(desk.end("base-1"), news=True)


async def test_a_configuration_that_is_gone_is_counted(desk: Desk) -> None:
    del desk.api.objects[BASE]
    desk.store.drop(BASE)
    await desk.projector.record(completion(builders.configuration("base"), "base-1"), news=True)
    assert desk.metrics.projected.labels(result="configuration-gone")._value.get() == 1


async def test_an_end_that_is_told_again_costs_nothing(desk: Desk) -> None:
    end = desk.end("base-1")
    for _ in range(3):
        await desk.projector.record(end, news=False)
    assert desk.api.status_writes[BASE] == 1


async def test_a_run_of_an_earlier_configuration_of_the_name_is_not_recorded(desk: Desk) -> None:
    owner = {"uid": "uid-earlier", "kind": "RunConfiguration", "name": "base", "controller": True}
    run = builders.run(name="base-1", uid="uid-base-1")
    desk.store.put(run.model_copy(update={"metadata": run.metadata.model_copy(update={"owner_references": [_reference(owner)]})}))
    await desk.projector.record(desk.end("base-1"), news=True)
    assert desk.recorded == []


def _reference(document: dict[str, Any]) -> Any:
    body = {"metadata": {"name": "x", "namespace": "team", "ownerReferences": [document]}, "spec": {"pipeline": "p"}}
    return type(builders.run()).parse(body).metadata.owner_references[0]


async def test_a_status_that_is_refused_is_written_without_artifacts(desk: Desk) -> None:
    desk.api.failures = [Unprocessable("too large", status=422)]
    await desk.projector.record(desk.end("base-1", artifacts={"model": "gs://b/1"}), news=True)
    latest = desk.base.status.latest_runs.succeeded
    assert latest is not None
    assert latest.artifacts == []
    assert desk.recorded == ["base-1"]
    assert desk.metrics.status_refused._value.get() == 1
