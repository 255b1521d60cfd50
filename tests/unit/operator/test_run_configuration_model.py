"""Whatever dies, gets lost or is told twice: the Runs that are started depend only on what happened.

The real controller and the real recorder of ends work on a simulated API server through random schedules, with deaths between any two
calls, answers that get lost, a quota that refuses Runs, and a second operator that does not know of the first.
"""

import asyncio
import random
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.run import Run
from kfp_operator.api.run_configuration import RunConfiguration
from kfp_operator.api.states import RunState
from kfp_operator.errors import ClusterError
from kfp_operator.operator.configuration_projector import ConfigurationProjector
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.owned_runs import OwnedRuns
from kfp_operator.operator.run_configuration_controller import RunConfigurationController
from kfp_operator.operator.store import Key, Store
from kfp_operator.reconcile.run_configuration_triggers import MANUAL, ON_PIPELINE, ON_RUN_SPEC, spec_hash
from kfp_operator.reconcile.schedule import rfc3339
from kfp_operator.reconcile.starting import occurrence_name
from kfp_operator.schemas import RunCompletion
from tests import builders
from tests.builders import NAMES, at
from tests.doubles.configurations import completion
from tests.doubles.objects import SimulatedObjects
from tests.doubles.world import Fate, Killed, Quiet

pytestmark = pytest.mark.slow

Step = tuple[int, int]
KINDS = 16
OWN = Key("RunConfiguration", "team", "nightly")
BASE = Key("RunConfiguration", "team", "base")
SECONDS = 10
"""Between two ticks."""


class Process:
    """One operator: its memory is lost when it dies."""

    def __init__(self, world: "World") -> None:
        self.store = Store(NAMES)
        self.controller = RunConfigurationController(
            store=self.store,
            objects=world.api,
            runs=OwnedRuns(self.store, world.api, wake=lambda _key: None),
            versions_of=lambda _namespace, _name: frozenset(),
            recorder=Quiet(),
            guard=lambda: None,
            now=world.now,
            names=NAMES,
        )
        self.projector = ConfigurationProjector(
            store=self.store, objects=world.api, metrics=Metrics(), guard=lambda: None, wake=lambda _key: None
        )
        world.api.list(self.store)


class World:
    """A configuration with every kind of trigger, the one it follows, and what has happened."""

    def __init__(self, operators: int, **spec: Any) -> None:
        self.seconds = 0.0
        self.fate = Fate()
        self.api = SimulatedObjects(self.fate, builders.NOW)
        triggers = {
            "schedules": [{"name": "s", "cronExpression": f"*/{SECONDS} * * * * *", "catchUp": "All"}],
            "onChange": ["pipeline", "runSpec"],
            "runConfigurations": ["base"],
        }
        self.api.put(builders.configuration(triggers=triggers, **spec))
        self.api.put(builders.configuration("base"))
        self.api.put(builders.pipeline())
        self.processes = [Process(self) for _ in range(operators)]
        self.happened: list[tuple[str, str]] = []
        self.untold: list[RunCompletion] = []
        self.told: list[RunCompletion] = []
        self.deaths = 0

    def now(self) -> Any:
        return at(self.seconds)

    @property
    def own(self) -> RunConfiguration:
        found = self.api.objects[OWN]
        assert isinstance(found, RunConfiguration)
        return found

    def restart(self, index: int) -> None:
        self.deaths += 1
        self.processes[index] = Process(self)

    async def attempt(self, index: int, work: Coroutine[Any, Any, Any]) -> bool:
        """Let a process work; it may die, and another takes its place."""
        try:
            await work
        except Killed:
            self.restart(index)
            return False
        except ClusterError:
            return False
        return True

    async def reconcile(self, index: int, *, stale: bool = False) -> None:
        process = self.processes[index]
        if not stale:
            self.api.list(process.store)
        await self.attempt(index, process.controller.reconcile(OWN))

    async def tell(self, index: int, event: RunCompletion) -> None:
        """A completion is delivered, and again until it was recorded."""
        if await self.attempt(index, self.processes[index].projector.record(event, news=False)) and event in self.untold:
            self.untold.remove(event)
            self.told.append(event)

    def seen(self, trigger: str, baseline: str) -> bool:
        """Whether the trigger has seen the last change: what changes back before anybody looks is no occurrence."""
        return any(entry.name == trigger and entry.baseline.startswith(baseline) for entry in self.own.status.triggers)

    # What happens

    def other_succeeds(self) -> None:
        if len(self.untold) + len(self._unfollowed()) > 40:
            return
        number = len(self.untold) + len(self.told)
        event = completion(self.api.objects[BASE], f"base-{number}", seconds=number)  # type: ignore[arg-type]
        self.untold.append(event)
        self.happened.append(("runConfiguration/team/base", f"base-{number}/uid-base-{number}/1"))

    def _unfollowed(self) -> list[RunCompletion]:
        followed = next((e.baseline for e in self.own.status.triggers if e.name == "runConfiguration/team/base"), "0")
        return self.told[int(followed or 0) :]

    def publish(self, version: str) -> None:
        pipeline = self.api.objects[Key("Pipeline", "team", "train")]
        assert isinstance(pipeline, Pipeline)
        if not self.seen(ON_PIPELINE, pipeline.status.version) or pipeline.status.version == version:
            return
        changed = self.api.put(pipeline.model_copy(update={"status": pipeline.status.model_copy(update={"version": version})}))
        self.happened.append((ON_PIPELINE, f"{version}.{changed.metadata.resource_version}"))

    def edit(self, experiment: str) -> None:
        own = self.own
        if not self.seen(ON_RUN_SPEC, spec_hash(own.spec.run)) or own.spec.run.experiment_name == experiment:
            return
        run = own.spec.run.model_copy(update={"experiment_name": experiment})
        generation = own.metadata.generation + 1
        self.api.put(own.model_copy(update={"spec": own.spec.model_copy(update={"run": run})}), generation=generation)
        self.happened.append((ON_RUN_SPEC, f"{spec_hash(run)}.{generation}"))

    def start(self, word: str) -> None:
        own = self.own
        before = own.metadata.annotations.get(NAMES.start, "")
        if not own.status.observed_generation or (before and not self.seen(MANUAL, before)) or (MANUAL, word) in self.happened:
            return
        self.api.put(own, annotations={NAMES.start: word})
        self.happened.append((MANUAL, word))

    def expected(self) -> set[str]:
        """The names of the Runs that must have been started."""
        ticks = [rfc3339(at(second)) for second in range(SECONDS, int(self.seconds) + 1, SECONDS)]
        happened = [*self.happened, *(("schedule/s", tick) for tick in ticks)]
        return {occurrence_name(self.own, trigger, what) for trigger, what in happened}


async def act(world: World, step: Step) -> None:
    what, which = step
    index = which % len(world.processes)
    match what:
        case 0 | 1 | 2:
            await world.reconcile(index)
        case 3:
            await world.reconcile(index, stale=True)
        case 4 | 5:
            world.other_succeeds()
        case 6 if world.untold:
            await world.tell(index, world.untold[which % len(world.untold)])
        case 7 if world.told:
            await world.tell(index, world.told[-1 - which % min(len(world.told), 20)])
        case 8:
            world.publish(f"{which % 3:06x}")
        case 9:
            world.edit(f"e{which % 3}")
        case 10:
            world.start(f"word-{which}")
        case 11:
            world.seconds += which % 40
        case 12:
            world.fate.kill_in, world.fate.before = which % 7 + 1, which % 2 == 0
        case 13:
            world.fate.lose.add("api")
        case 14:
            world.api.quota = not world.api.quota
        case 15:
            world.restart(index)


async def settle(world: World) -> None:
    world.fate.kill_in = None
    world.fate.lose.clear()
    world.api.quota = False
    for event in list(world.untold):
        await world.tell(0, event)
    for index in range(len(world.processes)):
        for _ in range(4):
            await world.reconcile(index)
    world.restart(0)
    await world.reconcile(0)


def check(world: World) -> None:
    created = world.api.created
    assert set(created) == world.expected(), "Runs were lost, or started for nothing"
    assert max(created.values(), default=1) == 1, "a Run was started twice"
    assert not [what for entry in world.own.status.triggers for what in entry.pending]
    base = world.api.objects[BASE]
    assert isinstance(base, RunConfiguration)
    journal = base.status.recent_runs
    assert len({entry.uid for entry in journal}) == len(journal), "recorded twice"
    assert (journal[-1].number if journal else 0) == len(world.told), "an end was lost"


async def live(steps: list[Step], operators: int) -> World:
    world = World(operators)
    await world.reconcile(0)
    for step in steps:
        await act(world, step)
    await settle(world)
    check(world)
    return world


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, KINDS - 1), st.integers(0, 1000)), max_size=80), st.integers(1, 3))
def test_the_runs_that_are_started_depend_only_on_what_happened(steps: list[Step], operators: int) -> None:
    asyncio.run(live(steps, operators))


def test_random_schedules_with_deaths_and_several_operators_end_right() -> None:
    deaths = started = 0
    for seed in range(24):
        chance = random.Random(seed)
        steps = [(chance.randrange(KINDS), chance.randrange(1000)) for _ in range(120)]
        try:
            world = asyncio.run(live(steps, 1 + seed % 3))
        except AssertionError as error:
            raise AssertionError(f"schedule of seed {seed}: {error}") from error
        deaths += world.deaths
        started += len(world.api.created)
    assert deaths > 100
    assert started > 400


async def live_with(policy: str, steps: list[Step]) -> World:
    """Runs end by and by, and never two of them are active at once."""
    world = World(1, concurrencyPolicy=policy)
    await world.reconcile(0)
    for what, which in steps:
        if what in (8, 9) and which % 3 == 0:
            end_one(world)
        else:
            await act(world, (what, which))
        active = [o for o in world.api.objects.values() if isinstance(o, Run) and o.status.completion_state is None and not o.spec.cancel]
        assert len(active) <= 1, "two at once"
    return world


def end_one(world: World) -> None:
    """The oldest active Run succeeds."""
    for key, found in world.api.objects.items():
        if isinstance(found, Run) and found.status.completion_state is None:
            update = {"completion_state": "Succeeded", "state": RunState.SUCCEEDED, "end_time": world.now() + timedelta(seconds=1)}
            world.api.objects[key] = world.api.put(found.model_copy(update={"status": found.status.model_copy(update=update)}))
            return


def test_with_a_policy_never_two_are_active_and_every_occurrence_is_started_or_counted() -> None:
    for seed in range(18):
        policy = ("Forbid", "Replace", "QueueLatest")[seed % 3]
        chance = random.Random(seed)
        steps = [(chance.randrange(KINDS), chance.randrange(1000)) for _ in range(120)]

        async def lived(policy: str = policy, steps: list[Step] = steps) -> World:
            world = await live_with(policy, steps)
            await settle(world)
            for _ in range(5):
                end_one(world)
                await world.reconcile(0)
            return world

        world = asyncio.run(lived())
        created = world.api.created
        assert max(created.values(), default=1) == 1
        assert set(created) <= world.expected()
        counted = sum(entry.suppressed for entry in world.own.status.triggers)
        assert len(created) + counted == len(world.expected()), f"seed {seed}"
        assert not [what for entry in world.own.status.triggers for what in entry.pending]
