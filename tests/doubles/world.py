"""A small world for the model test: API server, bus, backend and clock that stay, and operator processes that come and go.

Everything that stays is simulated; everything that decides is the real code: controllers, projector, outbox, store. A process can be
killed at every call that leaves it, before or after the call took effect, and answers can be lost.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from kfp_operator.api.meta import Model, Resource
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.provider import Provider as ProviderResource
from kfp_operator.api.revision import Revision
from kfp_operator.api.run import Run, RunSpec
from kfp_operator.api.run_configuration import RunConfiguration
from kfp_operator.api.states import RunState
from kfp_operator.errors import BusUnavailable, ClusterUnavailable, Conflict, LeadershipLost, NotFound, Permanent, Retryable
from kfp_operator.events.bus import Delivery, StoredMessage
from kfp_operator.events.subjects import Subjects
from kfp_operator.operator.backends import Backend
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.outbox import Outbox
from kfp_operator.operator.projector import DURABLE, Projector
from kfp_operator.operator.run_controller import RunController
from kfp_operator.operator.store import Key, Store
from kfp_operator.providers.protocol import ComponentArtifact, PipelineVersion, RunUpdate, StateChange, Submission
from kfp_operator.reconcile.pipeline import KeptRevision
from kfp_operator.reconcile.provider import Check
from kfp_operator.reconcile.situation import ProviderView
from kfp_operator.schemas import RunCompletion
from tests import builders
from tests.doubles.bus import EPOCH, MemoryBus

R = TypeVar("R", bound=Resource)
SPEC = {
    "pipelineInfo": {"name": "train"},
    "root": {
        "inputDefinitions": {"parameters": {"model": {"parameterType": "STRING", "isOptional": True}}},
        "dag": {"tasks": {"t": {"componentRef": {"name": "comp-t"}, "taskInfo": {"name": "t"}}}},
    },
    "components": {"comp-t": {"executorLabel": "exec-t"}},
    "deploymentSpec": {"executors": {"exec-t": {"container": {"image": "python", "command": ["true"]}}}},
    "schemaVersion": "2.1.0",
    "sdkVersion": "kfp-2.14.0",
}


class Killed(BaseException):
    """The process is gone, between any two lines."""


class Quiet:
    """A recorder that keeps nothing."""

    def normal(self, resource: Resource, reason: str, message: str) -> None: ...

    def warning(self, resource: Resource, reason: str, message: str) -> None: ...


@dataclass
class Fate:
    """When the process dies and which answers get lost: counted in calls that leave the process."""

    kill_in: int | None = None
    before: bool = True
    lose: set[str] = field(default_factory=set)
    """Kinds of call ("api", "submit") whose next answer gets lost."""

    def enter(self) -> None:
        """A call leaves the process."""
        if self.kill_in is not None:
            self.kill_in -= 1
            if self.kill_in < 0 or (self.kill_in == 0 and self.before):
                self.kill_in = None
                raise Killed

    def leave(self, kind: str) -> bool:
        """The call took effect; True: its answer gets lost."""
        if self.kill_in == 0:
            self.kill_in = None
            raise Killed
        if kind in self.lose:
            self.lose.discard(kind)
            return True
        return False


class FatefulBus(MemoryBus):
    """The memory bus, with deaths."""

    def __init__(self, fate: Fate) -> None:
        super().__init__(Subjects())
        self.fate = fate

    async def publish(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str],
        *,
        stream: str = "",
        delivered: bool = False,
        expected_last: int | None = None,
        ttl: float | None = None,
    ) -> int:
        self.fate.enter()
        sequence = await super().publish(subject, data, headers, stream=stream, delivered=delivered, expected_last=expected_last, ttl=ttl)
        self.fate.leave("publish")
        return sequence

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        self.fate.enter()
        return await super().last(stream, subject)


@dataclass
class FatefulDelivery:
    """A delivery whose ack can be the last thing a process does."""

    inner: Delivery
    fate: Fate

    @property
    def message(self) -> StoredMessage:
        return self.inner.message

    @property
    def deliveries(self) -> int:
        return self.inner.deliveries

    async def ack(self) -> None:
        self.fate.enter()
        await self.inner.ack()
        self.fate.leave("ack")

    async def nak(self, delay: float) -> None:
        await self.inner.nak(delay)

    async def in_progress(self) -> None:
        await self.inner.in_progress()

    async def term(self, reason: str) -> None:
        await self.inner.term(reason)


class SimulatedApi:
    """Runs at an API server: resourceVersions, conflicts, finalizers, deletion."""

    def __init__(self, fate: Fate, now: Callable[[], datetime]) -> None:
        self.fate = fate
        self.now = now
        self.runs: dict[Key, Run] = {}
        self.revision = 100
        self.writes: Counter[str] = Counter()
        self.kept: dict[Key, list[Run]] = {}
        """What backups hold: every version of each object."""
        self.completed: dict[str, str] = {}
        """uid -> label of Runs that were released as completed."""

    def create(self, run: Run) -> None:
        self.runs[Key.of(run)] = self._bump(run)

    def change(self, key: Key, **metadata: Any) -> None:
        """Somebody else changes the metadata."""
        run = self.runs[key]
        self._keep(key, self._bump(run.model_copy(update={"metadata": run.metadata.model_copy(update=metadata)})))

    def cancel(self, key: Key) -> None:
        run = self.runs[key]
        self._keep(key, self._bump(run.model_copy(update={"spec": run.spec.model_copy(update={"cancel": True})})))

    def restore(self, key: Key, which: int) -> None:
        """Somebody restores the storage from a backup: the object is as it was in a moment since it was bound."""
        versions = [run for run in self.kept[key] if run.metadata.finalizers]
        if versions and self.runs[key].metadata.deletion_timestamp is None:
            self._keep(key, self._bump(versions[which % len(versions)]))

    def remove(self, key: Key) -> None:
        """Somebody deletes the Run."""
        run = self.runs[key]
        if run.metadata.deletion_timestamp is None:
            self.change(key, deletion_timestamp=self.now().replace(microsecond=0))

    async def get(self, key: Key) -> Resource:
        self.fate.enter()
        if key not in self.runs:
            raise NotFound("gone", status=404)
        return self.runs[key]

    async def patch_metadata(self, resource: R, metadata: Mapping[str, Any]) -> R:
        run = self._checked(resource)
        merged = {**run.metadata.labels, **metadata.get("labels", {})}
        labels = {name: value for name, value in merged.items() if value is not None}
        annotations = {**run.metadata.annotations, **metadata.get("annotations", {})}
        update = {"labels": labels, "annotations": annotations, "finalizers": list(metadata.get("finalizers", run.metadata.finalizers))}
        self.completed.pop(run.metadata.uid, None)
        if builders.NAMES.completed in labels:
            self.completed[run.metadata.uid] = labels[builders.NAMES.completed]
        changed = self._bump(run.model_copy(update={"metadata": run.metadata.model_copy(update=update)}))
        self._keep(Key.of(run), changed)
        return self._answer(changed)

    async def patch_status(self, resource: R, status: Model) -> R:
        run = self._checked(resource)
        self.writes[run.metadata.uid] += 1
        changed = self._bump(Run.parse({"metadata": run.metadata.to_json(), "spec": run.spec.to_json(), "status": status.to_json()}))
        self._keep(Key.of(run), changed)
        return self._answer(changed)

    async def delete(self, key: Key, uid: str) -> None:
        self.fate.enter()
        self.runs.pop(key, None)

    def _checked(self, resource: Resource) -> Run:
        self.fate.enter()
        key = Key("Run", resource.metadata.namespace, resource.metadata.name)
        run = self.runs.get(key)
        if run is None:
            raise NotFound("gone", status=404)
        if run.metadata.resource_version != resource.metadata.resource_version:
            raise Conflict("changed", status=409)
        return run

    def _answer(self, run: Run) -> Any:
        if self.fate.leave("api"):
            raise ClusterUnavailable("no answer")
        return run

    def _bump(self, run: Run) -> Run:
        self.revision += 1
        metadata = run.metadata.model_copy(update={"resource_version": str(self.revision)})
        changed = run.model_copy(update={"metadata": metadata})
        self.kept.setdefault(Key.of(run), []).append(changed)
        return changed

    def _keep(self, key: Key, run: Run) -> None:
        if run.metadata.deletion_timestamp is not None and not run.metadata.finalizers:
            self.runs.pop(key, None)
        else:
            self.runs[key] = run


class SimulatedRevisions:
    """One version, always there."""

    async def list(self, pipeline: Pipeline) -> Sequence[KeptRevision]:
        return []

    async def load(self, namespace: str, pipeline: str, version: str) -> Revision:
        return Revision(name=f"{pipeline}-{version}", version=version, number=1, digest="", documents={"pipelineSpec": SPEC})

    async def create(self, pipeline: Pipeline, version: str, documents: Mapping[str, Any], number: int) -> None: ...

    async def delete(self, namespace: str, name: str) -> None: ...


class SimulatedBackend:
    """A backend that starts a run once per submission id and moves it on when the world says so."""

    statuses = frozenset(RunState)
    keeps_pipelines = False
    backend = ""
    others = None
    keeps_experiments = False

    def __init__(self, fate: Fate, now: Callable[[], datetime]) -> None:
        self.fate = fate
        self.now = now
        self.down = False
        self.runs: dict[str, RunUpdate] = {}
        self.starts: Counter[str] = Counter()
        self.outcome: dict[str, RunState] = {}
        self.refuse: set[str] = set()
        self.cancelled: set[str] = set()
        self.untold: set[str] = set()
        """Runs of which the watch has not told yet."""
        self.handed: set[str] = set()
        """Submissions that were on their way here once, whether or not they arrived."""
        self.misled: list[str] = []
        """Those of them that were said to be new all the same."""
        self.submitted: dict[str, datetime] = {}
        """When each submission arrived."""
        self.parameters: dict[str, Mapping[str, Any]] = {}

    def advance(self, submission: str) -> None:
        """The run takes its next step."""
        self.untold.discard(submission)
        update = self.runs[submission]
        if update.state.final:
            return
        if submission in self.cancelled:
            following = RunState.STOPPED
        else:
            following = {RunState.QUEUED: RunState.RUNNING, RunState.RUNNING: self.outcome.get(submission, RunState.SUCCEEDED)}[
                update.state
            ]
        now = self.now()
        update = replace(update, history=(*update.history, StateChange(following, now)))
        if following is RunState.RUNNING:
            update = replace(update, start_time=now)
        if following.final:
            update = replace(update, end_time=now)
        self.runs[submission] = update

    def reopen(self, submission: str) -> None:
        """Somebody retries the ended run at the backend, which takes up what failed or was stopped."""
        update = self.runs[submission]
        if update.state not in (RunState.FAILED, RunState.STOPPED):
            return
        self.cancelled.discard(submission)
        now = self.now()
        history = (StateChange(RunState.RUNNING, now),)
        self.runs[submission] = replace(update, history=history, attempt=update.attempt + 1, start_time=now, end_time=None)

    async def check(self) -> None: ...

    async def close(self) -> None: ...

    async def ensure_pipeline(self, pipeline: PipelineVersion) -> str:
        return pipeline.name

    async def delete_pipeline(self, provider_id: str) -> None: ...

    async def submit_run(self, submission: Submission) -> str:
        if submission.first_try and submission.id in self.handed:
            self.misled.append(submission.id)
        self.handed.add(submission.id)
        self._enter()
        if submission.uid in self.refuse:
            raise Permanent("the backend refuses it")
        if submission.id not in self.runs:
            self.starts[submission.id] += 1
            self.submitted[submission.id] = self.now()
            self.parameters[submission.id] = submission.parameters
            self.runs[submission.id] = RunUpdate(submission.id, f"id-{submission.id[:8]}", (StateChange(RunState.QUEUED, self.now()),))
        if self.fate.leave("submit"):
            self.untold.add(submission.id)
            raise Retryable("no answer")
        return self.runs[submission.id].provider_id

    async def get_run(self, submission_id: str) -> RunUpdate | None:
        self._enter()
        return self.runs.get(submission_id)

    async def cancel_run(self, submission_id: str) -> None:
        self._enter()
        self.cancelled.add(submission_id)
        self.fate.leave("cancel")

    async def logs(self, submission_id: str, *, follow: bool = False) -> AsyncIterator[str]:
        for line in ():
            yield line

    async def watch_runs(self) -> AsyncIterator[RunUpdate]:
        for update in self.runs.values():
            yield update

    async def artifacts(self, submission_id: str) -> Sequence[ComponentArtifact]:
        self._enter()
        return [ComponentArtifact("push", "model", "system.Model", "/models/1", {"serving": True})]

    def _enter(self) -> None:
        self.fate.enter()
        if self.down:
            raise Retryable("the backend does not answer")


class SimulatedBackends:
    """The open providers of one process: one, always usable, whose latest news the process sees when it looks."""

    def __init__(self, backend: SimulatedBackend) -> None:
        self._backend = Backend(1, backend)
        self._simulated = backend

    def get(self, name: str) -> Backend | None:
        self._backend.latest = {id_: update for id_, update in self._simulated.runs.items() if id_ not in self._simulated.untold}
        return self._backend

    def latest(self, submission: str) -> RunUpdate | None:
        return self._simulated.runs.get(submission)

    def view(self, resource: ProviderResource | None) -> ProviderView | None:
        return ProviderView(resource, usable=True) if resource is not None else None

    def check_of(self, name: str) -> Check | None:
        return Check(1, ok=True, time=EPOCH)

    def settle(self, name: str, submission: str) -> None: ...


class SimulatedTimers:
    """Timers that fire when the world says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waiting: list[tuple[float, Callable[[], Coroutine[Any, Any, None]]]] = []

    def time(self) -> float:
        return self.now

    def later(self, delay: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.waiting.append((self.now + delay, work))

    async def fire(self) -> None:
        """Run everything that is due."""
        due = [w for w in self.waiting if w[0] <= self.now]
        self.waiting = [w for w in self.waiting if w[0] > self.now]
        for _, work in due:
            await work()


async def unrecorded(event: RunCompletion, *, news: bool) -> None:
    """For Runs that no RunConfiguration made."""


class Process:
    """One operator process: its memory is lost when it dies."""

    def __init__(self, world: "World") -> None:
        self.store = Store(builders.NAMES)
        self.timers = SimulatedTimers()
        self.timers.now = world.seconds
        self.leads = True
        metrics = Metrics()
        guard = self._guard
        outbox = Outbox(world.bus, world.bus.subjects, mode="compatible", metrics=metrics, guard=guard, now=world.now)
        self.controller = RunController(
            store=self.store,
            objects=world.api,
            revisions=SimulatedRevisions(),
            versions_of=lambda _namespace, _name: frozenset({builders.VERSION}),
            backends=SimulatedBackends(world.backend),  # type: ignore[arg-type]
            outbox=outbox,
            recorder=Quiet(),
            metrics=metrics,
            guard=guard,
            now=world.now,
            names=builders.NAMES,
            artifact_deadline=timedelta(minutes=10),
            project=lambda event: self.projector.take(event),
        )
        self.projector = Projector(
            subjects=world.bus.subjects,
            store=self.store,
            objects=world.api,
            outbox=outbox,
            metrics=metrics,
            guard=guard,
            now=world.now,
            timers=self.timers,
            names=builders.NAMES,
            replay_window=timedelta(hours=1),
            saw=self.controller.saw,
            record=unrecorded,
            wake=lambda _key: None,
        )
        self.store.put(builders.pipeline(spec={"pipelineSpec": SPEC}))
        self.store.put(builders.provider().resource)
        self.list(world)
        for submission in world.backend.runs:
            self.controller.owner(submission)  # the watch begins with what is there

    def _guard(self) -> None:
        if not self.leads:
            raise LeadershipLost("the Lease was not renewed")

    def list(self, world: "World") -> None:
        """The watch catches up: what is there, and what is gone."""
        api = world.api
        if world.upstream is not None:
            self.store.put(world.upstream)
        for run in api.runs.values():
            self.store.put(run)
        for key in self.store.keys("Run"):
            if key not in api.runs:
                uid = self.store.uid_of(key)
                self.store.drop(key)
                self.controller.gone(uid)


class World:
    """Everything, and a clock."""

    def __init__(self, runs: int, specs: Sequence[Mapping[str, Any]] = ()) -> None:
        """`specs`: what the specs of the Runs say beyond the usual, in turn."""
        self.seconds = 0.0
        self.fate = Fate()
        self.bus = FatefulBus(self.fate)
        self.api = SimulatedApi(self.fate, self.now)
        self.backend = SimulatedBackend(self.fate, self.now)
        self.deaths = 0
        self.losses = 0
        """How often the stream of events was lost."""
        self.emptied: set[str] = set()
        """uids of Runs that had ended when the stream was lost, or whose end had been read: what it held of them is lost for good."""
        self.upstream: RunConfiguration | None = None
        """The RunConfiguration that parameters with valueFrom name."""
        self.keys: list[Key] = []
        self.specs: list[RunSpec] = []
        for i in range(runs):
            run = builders.run(name=f"run-{i}", uid=f"uid-{i}", spec=dict(specs[i % len(specs)]) if specs else None)
            self.api.create(run)
            self.keys.append(Key.of(run))
            self.specs.append(run.spec)
        self.process = Process(self)

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds)

    def pass_time(self, seconds: float) -> None:
        self.seconds += seconds
        self.bus.advance(seconds)
        self.process.timers.now = self.seconds

    def restart(self) -> None:
        self.deaths += 1
        self.backend.untold.clear()
        self.process = Process(self)

    async def attempt(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a piece of the process's work; it may die in it, and another process takes over."""
        try:
            await work
        except Killed:
            self.restart()
        except (ClusterUnavailable, LeadershipLost):
            return

    def reopen(self, submission: str) -> None:
        """Somebody retries a run at the backend, and the watch tells it."""
        self.backend.reopen(submission)
        self.process.controller.owner(submission)

    def produce(self, location: str) -> None:
        """A run of the RunConfiguration upstream succeeded and left an artifact there."""
        self.api.revision += 1
        self.upstream = RunConfiguration.parse(
            {
                "metadata": {"name": "up", "namespace": "team", "uid": "up-uid", "resourceVersion": str(self.api.revision)},
                "spec": {"run": {"pipeline": "train", "artifacts": [{"name": "model", "path": "push:model"}]}},
                "status": {"latestRuns": {"succeeded": {"name": "up-1", "artifacts": [{"name": "model", "location": location}]}}},
            }
        )

    def lose_stream(self) -> None:
        """Somebody deletes the stream of events; it is made again."""
        for index, key in enumerate(self.keys):
            uid = f"uid-{index}"
            buffer = self.process.projector._buffers.get(uid)
            read = buffer is not None and any(isinstance(event, RunCompletion) for event in buffer.events)
            if read or key not in self.api.runs or self.api.runs[key].status.completion_state is not None:
                self.emptied.add(uid)
        self.losses += 1
        stream = self.bus.subjects.stream("runs")
        self.bus.delete_stream(stream)
        self.bus.add_stream(stream, self.bus.subjects.stored_by("runs"))

    def lose_consumer(self) -> None:
        """Somebody deletes the projector's consumer; it is made again when it is asked next, and reads all anew."""
        stream = self.bus.subjects.stream("runs")
        if DURABLE in self.bus._streams[stream].consumers:
            self.bus.delete_consumer(stream, DURABLE)

    async def make_noise(self, index: int, transition: int) -> None:
        """A stranger stores what is no event in the place of a Run's run-status, or of its completion (transition 0)."""
        namespace, name, uid = self.keys[index].namespace, self.keys[index].name, f"uid-{index}"
        subjects = self.bus.subjects
        status, completion = subjects.run_status(namespace, name, uid, max(transition, 1)), subjects.run_completion(namespace, name, uid, 1)
        with suppress(BusUnavailable):
            await MemoryBus.publish(self.bus, status if transition else completion, b"noise", {})

    async def reconcile(self, index: int, *, stale: bool = False) -> None:
        if not stale:
            self.process.list(self)
        await self.attempt(self.process.controller.reconcile(self.keys[index]))

    async def deliver(self) -> bool:
        delivery = self.bus.poll(self.bus.subjects.stream("runs"), DURABLE)
        if delivery is None:
            return False
        await self.attempt(self.process.projector.accept(FatefulDelivery(delivery, self.fate)))
        return True

    async def fire(self) -> None:
        await self.attempt(self.process.timers.fire())
