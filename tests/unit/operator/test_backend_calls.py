"""How often the operator asks a backend: an hour with ten active runs costs the same, whatever number of runs has finished before.

Controllers, projector, provider and its HTTP client are the real ones; the server is the double, and the hour is simulated.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime, timedelta

import pytest

from kfp_operator.api.provider import Provider as ProviderResource
from kfp_operator.api.run import Run
from kfp_operator.errors import ClusterError
from kfp_operator.operator.backends import Backends
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.outbox import Outbox
from kfp_operator.operator.projector import DURABLE, AsyncioTimers, Projector
from kfp_operator.operator.queue import WorkQueue
from kfp_operator.operator.run_controller import RunController
from kfp_operator.operator.store import Key, Store
from kfp_operator.providers.kubeflow import KubeflowParameters, KubeflowProvider
from kfp_operator.providers.kubeflow.naming import Mark
from kfp_operator.providers.protocol import Provider, ProviderConfig, submission_id
from kfp_operator.reconcile.provider import CHECK_EVERY
from tests import builders
from tests.doubles.bus import EPOCH, MemoryBus
from tests.doubles.kfp_api import KfpApi, Options, Outcome, PortedWorkflows
from tests.doubles.kfp_api.rows import Change
from tests.doubles.kfp_api.rows import Run as Row
from tests.doubles.world import SPEC, Fate, Quiet, SimulatedApi, SimulatedRevisions, unrecorded
from tests.unit.operator.simulated_time import now as seconds
from tests.unit.operator.simulated_time import run as simulate
from tests.unit.operator.simulated_time import until

pytestmark = pytest.mark.slow

PROVIDER = "mlops/local"
HOUR = 3600.0
POLL = 60.0
SPARE = 6
"""Poll intervals between two sweeps when Workflows tell of changes, and between two looks at what ended lately."""


def now() -> datetime:
    return EPOCH + timedelta(seconds=seconds())


class LoopClock:
    """The provider's clock, on the loop's."""

    def now(self) -> datetime:
        return now()

    def monotonic(self) -> float:
        return seconds()

    async def sleep(self, pause: float) -> None:
        await asyncio.sleep(pause)

    async def wait(self, event: asyncio.Event, pause: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await event.wait()


class Api(SimulatedApi):
    """An API server whose changes the operator watches."""

    def __init__(self) -> None:
        super().__init__(Fate(), now)
        self.operator: Operator | None = None

    def _keep(self, key: Key, run: Run) -> None:
        super()._keep(key, run)
        if self.operator is not None:
            self.operator.saw(run)


class Operator:
    """The parts of an operator that have to do with runs, wired as in the application."""

    def __init__(self, api: Api, bus: MemoryBus, kfp: KfpApi, watch: str) -> None:
        self.store = Store(builders.NAMES)
        self.queue: WorkQueue[Key] = WorkQueue()
        self._kfp, self._watch, self._bus, self._api = kfp, watch, bus, api
        self._resource = builders.provider(spec={"type": "kubeflow"}).resource
        self.backends = Backends(self._open, now=now, on_update=self._update, on_trouble=lambda _name: None)
        metrics = Metrics()
        outbox = Outbox(bus, bus.subjects, mode="compatible", metrics=metrics, guard=self._guard, now=now)
        self.controller = RunController(
            store=self.store,
            objects=api,
            revisions=SimulatedRevisions(),
            versions_of=lambda _namespace, _name: frozenset({builders.VERSION}),
            backends=self.backends,
            outbox=outbox,
            recorder=Quiet(),
            metrics=metrics,
            guard=self._guard,
            now=now,
            names=builders.NAMES,
            artifact_deadline=timedelta(minutes=10),
            project=lambda event: self.projector.take(event),
        )
        self.projector = Projector(
            subjects=bus.subjects,
            store=self.store,
            objects=api,
            outbox=outbox,
            metrics=metrics,
            guard=self._guard,
            now=now,
            timers=AsyncioTimers(),
            names=builders.NAMES,
            replay_window=timedelta(hours=1),
            saw=self.controller.saw,
            record=unrecorded,
            wake=self.queue.add,
        )
        self.store.put(builders.pipeline(spec={"pipelineSpec": SPEC}))
        self.store.put(self._resource)

    def saw(self, run: Run) -> None:
        """The watch tells of a change."""
        if Key.of(run) in self._api.runs:
            self.store.put(run)
        else:
            self.store.drop(Key.of(run))
        self.queue.add(Key.of(run))

    async def work(self) -> None:
        """A worker: looks at what the queue says."""
        while True:
            key = await self.queue.get()
            try:
                again = await self.controller.reconcile(key)
            except ClusterError:
                self.queue.retry(key)
            else:
                self.queue.forget(key)
                if again is not None:
                    self.queue.add_after(key, again)
            finally:
                self.queue.done(key)

    async def check(self) -> None:
        """Checks the Provider as its controller does."""
        while True:
            result = await self.backends.check(self._resource)
            assert result.ok, result.message
            await asyncio.sleep(CHECK_EVERY)

    async def project(self) -> None:
        """Reads events as they are stored."""
        async for delivery in self._bus.consume(self._bus.subjects.stream("runs"), DURABLE):
            await self.projector.accept(delivery)

    def _open(self, resource: ProviderResource) -> Provider:
        given = {"endpoint": self._kfp.url, "artifactSource": "None", "pollIntervalSeconds": POLL, "watch": self._watch}
        parameters = KubeflowParameters.model_validate(given)
        workflows = PortedWorkflows(self._kfp.service.argo)
        config = ProviderConfig(resource.metadata.namespace, resource.metadata.name, parameters, workflows=workflows)
        return KubeflowProvider(config, parameters, clock=LoopClock())

    def _update(self, submission: str) -> None:
        key = self.controller.owner(submission)
        if key is not None:
            self.queue.add(key)

    def _guard(self) -> None:
        """It leads."""


@asynccontextmanager
async def operating(api: Api, bus: MemoryBus, kfp: KfpApi, watch: str) -> AsyncIterator[Operator]:
    """An operator from here to the end of the context; it begins with what there is."""
    operator = api.operator = Operator(api, bus, kfp, watch)
    await operator.backends.check(operator._resource)
    tasks = [asyncio.create_task(work()) for work in (operator.work, operator.check, operator.project)]
    for run in list(api.runs.values()):
        operator.saw(run)
    try:
        yield operator
        assert not any(task.done() for task in tasks)
    finally:
        api.operator = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await operator.backends.close_all()


def finished(api: Api, kfp: KfpApi, count: int) -> None:
    """Runs that ended yesterday, here and there."""
    yesterday = now() - timedelta(days=1)
    shown = {"state": "succeeded", "completionState": "Succeeded", "attempt": 1, "transition": 3}
    for number in range(count):
        name, uid = f"old-{number}", f"old-uid-{number}"
        labels, run_id = {builders.NAMES.completed: "succeeded"}, submission_id(uid, 1)
        status = shown | {"provider": PROVIDER, "providerId": run_id}
        api.create(builders.run(name=name, uid=uid, labels=labels, status=status))
        kfp.service.rows.runs[run_id] = Row(
            id=run_id,
            name=name,
            created=yesterday,
            experiment="",
            namespace="kubeflow",
            state="SUCCEEDED",
            history=[Change("SUCCEEDED", yesterday)],
            description=str(Mark(PROVIDER, run_id, f"team/{name}", uid, 1)),
            finished=yesterday,
        )


def states(api: Api) -> Counter[str]:
    """How many of the new Runs are in each state."""
    runs = [api.runs[Key("Run", "team", f"new-{number}")] for number in range(10)]
    return Counter(run.status.state.value if run.status.state else "" for run in runs)


async def an_hour(watch: str, known: int, ends: int = 0) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Requests in an hour with ten active runs, of which some end in it; and those of an operator that takes over after it."""
    async with AsyncExitStack() as stack:
        kfp = await stack.enter_async_context(KfpApi(Options(), now=now))
        api, bus = Api(), MemoryBus(clock=seconds)
        finished(api, kfp, known)
        kfp.outcome(Outcome(by_hand=True))
        for number in range(10):
            api.create(builders.run(name=f"new-{number}", uid=f"new-uid-{number}"))
        async with operating(api, bus, kfp, watch):
            await until(lambda: states(api)["queued"] == 10, within=120)
            for number in range(10):
                kfp.start(submission_id(f"new-uid-{number}", 1))
            await until(lambda: states(api)["running"] == 10, within=120)
            kfp.requests.clear()
            for number in range(ends):
                await asyncio.sleep(HOUR / 10)
                kfp.finish(submission_id(f"new-uid-{number}", 1))
            await asyncio.sleep(HOUR * (10 - ends) / 10)
            asked = Counter(kfp.requests)
            await until(lambda: states(api)["succeeded"] == ends, within=2 * POLL * SPARE)
            assert states(api)["running"] == 10 - ends
        assert all(kfp.started(submission_id(f"new-uid-{number}", 1)) == 1 for number in range(10))
        kfp.requests.clear()
        async with operating(api, bus, kfp, watch):
            await asyncio.sleep(POLL)
            taken_over = Counter(kfp.requests)
            assert states(api)["running"] == 10 - ends
        return asked, taken_over


@pytest.mark.parametrize("watch", ["Poll", "Workflows"])
def test_an_hour_costs_what_its_active_runs_cost_whatever_has_finished(watch: str) -> None:
    few, many = simulate(an_hour(watch, 0)), simulate(an_hour(watch, 10_000))
    assert few == many
    asked, taken_over = many
    sweeps = HOUR / POLL if watch == "Poll" else HOUR / POLL / SPARE
    recent = HOUR / POLL / SPARE
    checks = 2 * HOUR / CHECK_EVERY
    assert sum(asked.values()) <= sweeps + recent + checks + 5, asked
    assert asked["GET", "/runs/{id}"] == 0, "nothing changed"
    assert sum(taken_over.values()) <= 10 + 10, taken_over


@pytest.mark.parametrize("watch", ["Poll", "Workflows"])
def test_each_run_that_ends_costs_a_few_requests_more(watch: str) -> None:
    (idle, _), (busy, _) = simulate(an_hour(watch, 0)), simulate(an_hour(watch, 0, ends=10))
    assert sum(busy.values()) <= sum(idle.values()) + 10 * 3, busy - idle
