"""What the controller makes of answers that are refusals, of names that are taken, and of writes that nobody confirms."""

from datetime import timedelta
from typing import Any

import pytest

from kfp_operator.api.meta import Resource
from kfp_operator.api.run import Run
from kfp_operator.api.run_configuration import RunConfiguration
from kfp_operator.api.states import RunState
from kfp_operator.errors import ClusterUnavailable
from kfp_operator.operator.owned_runs import OwnedRuns
from kfp_operator.operator.run_configuration_controller import RunConfigurationController
from kfp_operator.operator.store import Key, Store
from tests import builders
from tests.builders import NAMES
from tests.doubles.configurations import completion, recorded
from tests.doubles.objects import SimulatedObjects
from tests.doubles.world import Fate

OWN = Key("RunConfiguration", "team", "nightly")
BASE = Key("RunConfiguration", "team", "base")


class Told:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []

    def normal(self, resource: Resource, reason: str, message: str) -> None:
        self.events.append(("Normal", reason, message))

    def warning(self, resource: Resource, reason: str, message: str) -> None:
        self.events.append(("Warning", reason, message))

    def reasons(self) -> list[str]:
        return [reason for _, reason, _ in self.events]


class Desk:
    """A controller with its surroundings, and a configuration that follows another."""

    def __init__(self, **spec: Any) -> None:
        self.fate, self.told, self.now = Fate(), Told(), builders.NOW
        self.api = SimulatedObjects(self.fate, builders.NOW)
        self.store = Store(NAMES)
        self.controller = RunConfigurationController(
            store=self.store,
            objects=self.api,
            runs=OwnedRuns(self.store, self.api, wake=lambda _key: None),
            versions_of=lambda _namespace, _name: frozenset(),
            recorder=self.told,
            guard=lambda: None,
            now=lambda: self.now,
            names=NAMES,
        )
        self.api.put(builders.pipeline())
        self.api.put(builders.configuration("base", run={"artifacts": [{"name": "model", "path": "trainer:model"}]}))
        self.api.put(builders.configuration(**({"triggers": {"runConfigurations": ["base"]}} | spec)))
        self._ended = 0

    @property
    def own(self) -> RunConfiguration:
        found = self.api.objects[OWN]
        assert isinstance(found, RunConfiguration)
        return found

    @property
    def runs(self) -> dict[str, Run]:
        return {key.name: found for key, found in self.api.objects.items() if isinstance(found, Run)}

    async def reconcile(self) -> float | None:
        self.api.list(self.store)
        return await self.controller.reconcile(OWN)

    def other_succeeds(self, **artifacts: str) -> None:
        self._ended += 1
        base = self.api.objects[BASE]
        assert isinstance(base, RunConfiguration)
        self.api.put(recorded(base, completion(base, f"base-{self._ended}", seconds=self._ended, artifacts=artifacts)))

    def end(self, name: str) -> None:
        run = self.runs[name]
        update = {"completion_state": "Succeeded", "state": RunState.SUCCEEDED, "end_time": self.now}
        completed = builders.run(name="x", status={"conditions": [_completed(self.now)]}).status.conditions
        self.api.put(run.model_copy(update={"status": run.status.model_copy(update=update | {"conditions": completed})}))


def _completed(now: Any) -> dict[str, Any]:
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "Completed", "status": "True", "reason": "Succeeded", "lastTransitionTime": time}


@pytest.fixture
async def desk() -> Desk:
    made = Desk()
    await made.reconcile()
    return made


async def test_a_start_is_told(desk: Desk) -> None:
    desk.other_succeeds()
    assert await desk.reconcile() is None
    [name] = desk.runs
    assert ("Normal", "Started", f"Run {name} was started by runConfiguration/team/base") in desk.told.events
    assert [run.name for run in desk.own.status.active] == [name]


async def test_a_quota_is_told_once_and_shown_and_tried_again(desk: Desk) -> None:
    desk.api.quota = True
    desk.other_succeeds()
    again = await desk.reconcile()
    assert again is not None
    assert 0 < again <= 2
    ready = next(c for c in desk.own.status.conditions if c.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "RunRefused")
    assert "exceeded quota" in ready.message
    for _ in range(5):
        desk.now += timedelta(seconds=again)
        following = await desk.reconcile()
        assert following is not None
        assert following > again
        again = following
    assert desk.told.reasons().count("RunRefused") == 1
    desk.api.quota = False
    desk.now += timedelta(seconds=again)
    await desk.reconcile()
    assert len(desk.runs) == 1
    ready = next(c for c in desk.own.status.conditions if c.type == "Ready")
    assert ready.status == "True"


async def test_a_name_that_is_taken_is_told_and_waited_for(desk: Desk) -> None:
    desk.other_succeeds()
    desk.api.quota = True
    await desk.reconcile()
    [wanted] = [event[2].split()[1] for event in desk.told.events if event[1] == "RunRefused"]
    stranger = desk.api.put(builders.run(name=wanted, uid="uid-stranger"))
    desk.api.quota = False
    desk.now += timedelta(seconds=10)
    await desk.reconcile()
    assert "exists and is not of RunConfiguration nightly" in desk.own.status.message
    del desk.api.objects[Key.of(stranger)]
    desk.now += timedelta(seconds=10)
    await desk.reconcile()
    assert desk.api.created[wanted] == 1


async def test_a_run_whose_creation_was_not_confirmed_is_found(desk: Desk) -> None:
    desk.other_succeeds()
    desk.api.lose_next("create")
    with pytest.raises(ClusterUnavailable):
        await desk.reconcile()
    await desk.reconcile()
    assert list(desk.api.created.values()) == [1]
    assert desk.own.status.triggers[0].pending == []


async def test_what_a_write_took_off_that_was_not_confirmed_is_not_started_again(desk: Desk) -> None:
    """Not from an old copy of the object either, though the Run is gone by now."""
    desk.other_succeeds()
    desk.api.lose_after_create = True
    with pytest.raises(ClusterUnavailable):
        await desk.reconcile()
    assert desk.own.status.triggers[0].pending == [], "it was taken off"
    for key in [key for key in desk.api.objects if key.kind == "Run"]:
        del desk.api.objects[key]
        desk.store.drop(key)
    await desk.controller.reconcile(OWN)  # the watch has not told of the write yet
    assert sum(desk.api.created.values()) == 1


async def test_replaced_runs_are_stopped(desk: Desk) -> None:
    made = Desk(concurrencyPolicy="Replace")
    await made.reconcile()
    made.other_succeeds()
    await made.reconcile()
    [first] = made.runs
    made.other_succeeds()
    await made.reconcile()
    assert {name: run.spec.cancel for name, run in made.runs.items()} == {name: name == first for name in made.runs}
    assert len(made.runs) == 2
    assert "Replaced" in made.told.reasons()


async def test_runs_beyond_the_limit_are_deleted_once() -> None:
    made = Desk(successfulRunsHistoryLimit=1)
    await made.reconcile()
    for _ in range(3):
        made.other_succeeds()
        await made.reconcile()
        made.now += timedelta(seconds=1)
        for name in [n for n, run in made.runs.items() if run.status.completion_state is None]:
            made.end(name)
        await made.reconcile()
    assert len(made.runs) == 1
    assert made.api.deleted == 2


async def test_what_is_passed_over_is_told(desk: Desk) -> None:
    made = Desk(concurrencyPolicy="Forbid")
    await made.reconcile()
    made.other_succeeds()
    made.other_succeeds()
    await made.reconcile()
    assert "Suppressed" in made.told.reasons()


async def test_what_it_waits_for_is_told_once() -> None:
    ref = {"name": "model", "valueFrom": {"runConfigurationRef": {"name": "base", "outputArtifact": "model"}}}
    made = Desk(run={"parameters": [ref]})
    for _ in range(3):
        await made.reconcile()
    assert made.told.reasons() == ["ArtifactNotFound"]


async def test_what_a_followed_run_produced_is_read_from_the_run() -> None:
    ref = {"name": "model", "valueFrom": {"runConfigurationRef": {"name": "base", "outputArtifact": "model"}}}
    made = Desk(run={"parameters": [ref]}, triggers={"runConfigurations": ["base"]})
    await made.reconcile()
    for n in (1, 2, 3):
        made.other_succeeds(model=f"gs://b/{n}")
    artifacts = [{"name": "model", "location": "gs://b/1"}]
    status = {"state": "succeeded", "completionState": "Succeeded", "attempt": 1, "artifacts": artifacts}
    made.api.put(builders.run(name="base-1", uid="uid-base-1", status=status))
    made.api.put(builders.run(name="base-2", uid="uid-another", status=status))
    await made.reconcile()
    values = [p.value for run in made.runs.values() if run.metadata.owner_references for p in run.spec.parameters]
    assert values == ["gs://b/1", "gs://b/3", "gs://b/3"], "the second is another Run now, the latest stands for it"


async def test_an_idle_configuration_writes_nothing_and_asks_for_nothing(desk: Desk) -> None:
    writes = desk.api.status_writes.copy()
    for _ in range(3):
        assert await desk.reconcile() is None
    assert desk.api.status_writes == writes


async def test_one_that_is_gone_is_forgotten(desk: Desk) -> None:
    del desk.api.objects[OWN]
    assert await desk.reconcile() is None
    assert desk.controller._desks == {}
