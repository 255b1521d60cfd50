"""A small world for RunSchedules: an API server and a clock that stay, and operator processes that come and go.

The controller, the store and the decisions are the real ones. A process can be killed at every call that leaves it, before or after
the call took effect, and answers can be lost.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from kfp_operator.api import conditions
from kfp_operator.api.meta import Model, Resource
from kfp_operator.api.run import Run
from kfp_operator.api.run_schedule import RunSchedule
from kfp_operator.api.states import RunState
from kfp_operator.errors import AlreadyExists, ClusterError, ClusterUnavailable, Conflict, Forbidden, LeadershipLost, NotFound
from kfp_operator.operator.owned_runs import OwnedRuns
from kfp_operator.operator.run_schedule_controller import RunScheduleController
from kfp_operator.operator.store import Key, Store
from tests import builders
from tests.doubles.world import Fate, Killed

R = TypeVar("R", bound=Resource)
KEY = Key("RunSchedule", "team", "nightly")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Api:
    """RunSchedules and Runs at an API server: resourceVersions, conflicts, taken names, refusals."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.now = BEGIN
        self.objects: dict[Key, Resource] = {}
        self.revision = 100
        self.created: Counter[str] = Counter()
        """How often a Run of each name was created."""
        self.order: list[str] = []
        """The names of created Runs, in order."""
        self.status_writes = 0
        self.refusal: ClusterError | None = None
        """What the next creations of Runs meet."""
        self.undeletable = False
        """Whether no Run can be deleted by the operator."""
        self.gone: list[Resource] = []
        """What the operator deleted and the watches have not reported."""
        self.stores: list[Store] = []
        """Who watches."""

    async def get(self, key: Key) -> Resource:
        self.fate.enter()
        if key not in self.objects:
            raise NotFound(f"{key} is gone", status=404)
        return self.objects[key]

    async def create(self, kind: type[R], document: Mapping[str, Any]) -> R:
        self.fate.enter()
        if self.refusal is not None:
            raise self.refusal
        metadata = document["metadata"]
        key = Key(kind.__name__, metadata["namespace"], metadata["name"])
        if key in self.objects:
            raise AlreadyExists(f"{key} exists", status=409)
        self.revision += 1
        self.created[key.name] += 1
        self.order.append(key.name)
        stamped = {"uid": f"run-{self.revision}", "resourceVersion": str(self.revision), "creationTimestamp": stamp(self.now)}
        made = kind.parse({**document, "metadata": {**metadata, **stamped}})
        self.objects[key] = made
        return self._answer(made)

    async def patch_spec(self, resource: R, spec: Mapping[str, Any]) -> R:
        found = self._checked(resource)
        document = found.to_json()
        return self._answer(self._keep(type(resource).parse({**document, "spec": document["spec"] | spec})))

    async def patch_metadata(self, resource: R, metadata: Mapping[str, Any]) -> R:
        raise AssertionError("neither a RunSchedule nor its Runs are given metadata")

    async def patch_status(self, resource: R, status: Model) -> R:
        found = self._checked(resource)
        if status.to_json() == getattr(found, "status").to_json():  # noqa: B009  # every kind of ours has one, the base has none
            return resource
        self.status_writes += 1
        return self._answer(self._keep(type(resource).parse({**found.to_json(), "status": status.to_json()})))

    async def delete(self, key: Key, uid: str) -> None:
        self.fate.enter()
        if self.undeletable:
            raise Forbidden("runs is forbidden", status=403)
        found = self.objects.get(key)
        if found is None:
            raise NotFound(f"{key} is gone", status=404)
        if found.metadata.uid != uid:
            raise Conflict("another one", status=409)
        self.gone.append(self.objects.pop(key))
        if self.fate.leave("api"):
            raise ClusterUnavailable("no answer")

    def put(self, resource: R) -> R:
        """Somebody else writes."""
        kept = self._keep(resource)
        self.tell(Key.of(kept))
        return kept

    def remove(self, key: Key) -> None:
        """Somebody else deletes."""
        found = self.objects.pop(key, None)
        for store in self.stores:
            store.drop(key, found.metadata.uid if found is not None else "")

    def tell(self, key: Key) -> None:
        """The watches report the object."""
        for store in self.stores:
            store.put(self.objects[key])

    def report(self) -> None:
        """The watches report what the operator deleted."""
        for store in self.stores:
            for resource in self.gone:
                store.drop(Key.of(resource), resource.metadata.uid)
        self.gone.clear()

    def _checked(self, resource: Resource) -> Resource:
        self.fate.enter()
        found = self.objects.get(Key.of(resource))
        if found is None:
            raise NotFound("gone", status=404)
        if found.metadata.resource_version != resource.metadata.resource_version:
            raise Conflict("changed", status=409)
        return found

    def _keep(self, resource: R) -> R:
        self.revision += 1
        kept = resource.model_copy(update={"metadata": resource.metadata.model_copy(update={"resource_version": str(self.revision)})})
        self.objects[Key.of(kept)] = kept
        return kept

    def _answer(self, resource: R) -> R:
        if self.fate.leave("api"):
            raise ClusterUnavailable("no answer")
        return resource


class Notes:
    """A recorder that keeps everything."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def normal(self, resource: Resource, reason: str, message: str) -> None:
        self.told.append((reason, message))

    def warning(self, resource: Resource, reason: str, message: str) -> None:
        self.told.append((reason, message))

    def reasons(self) -> list[str]:
        return [reason for reason, _ in self.told]


class Process:
    """One operator process."""

    def __init__(self, api: Api, notes: Notes) -> None:
        self.leads = True
        self.store = Store(builders.NAMES)
        for resource in api.objects.values():
            self.store.put(resource)
        api.stores.append(self.store)
        self.runs = OwnedRuns(self.store, api, wake=lambda _: None)
        self.controller = RunScheduleController(
            store=self.store, objects=api, runs=self.runs, recorder=notes, guard=self._guard, now=lambda: api.now, names=builders.NAMES
        )

    def _guard(self) -> None:
        if not self.leads:
            raise LeadershipLost("another process leads")


class World:
    """A RunSchedule team/nightly and those who deal with it."""

    def __init__(self, expression: str = "0 * * * *", **spec: Any) -> None:
        self.fate = Fate()
        self.api = Api(self.fate)
        self.notes = Notes()
        self.deaths = 0
        self.overlap = 0
        """The most Runs that were active at once and not asked to stop, as far as somebody looked."""
        self.again: float | None = None
        self.process = Process(self.api, self.notes)
        self.apply(expression, **spec)

    # Users

    def apply(self, expression: str = "0 * * * *", *, uid: str = "schedule-1", **spec: Any) -> None:
        """Create the RunSchedule, or replace its spec."""
        schedule = {"cronExpression": expression} | {name: spec.pop(name) for name in ("timeZone", "startTime", "endTime") if name in spec}
        before = self.api.objects.get(KEY)
        metadata = {
            "name": KEY.name,
            "namespace": KEY.namespace,
            "uid": uid if before is None else before.metadata.uid,
            "generation": 1 if before is None else before.metadata.generation + 1,
            "creationTimestamp": stamp(self.api.now),
        }
        if before is not None and before.metadata.creation_timestamp is not None:
            metadata["creationTimestamp"] = stamp(before.metadata.creation_timestamp)
        status = self.schedule.status.to_json() if before is not None else {}
        document = {"metadata": metadata, "spec": {"pipeline": "train", "schedule": schedule} | spec, "status": status}
        self.api.put(RunSchedule.parse(document))

    @property
    def schedule(self) -> RunSchedule:
        """As it is at the API server."""
        found = self.api.objects[KEY]
        assert isinstance(found, RunSchedule)
        return found

    @property
    def runs(self) -> dict[str, Run]:
        """All Runs at the API server, by name."""
        return {key.name: run for key, run in self.api.objects.items() if isinstance(run, Run)}

    @property
    def active(self) -> list[str]:
        """The names of those that have not ended."""
        return [name for name, run in self.runs.items() if run.status.completion_state is None]

    @property
    def started(self) -> list[datetime]:
        """The ticks of all Runs that were ever created, in order."""
        return [tick(name) for name in self.api.order]

    def ready(self) -> tuple[str, str]:
        """Status and reason of condition Ready."""
        found = conditions.find(self.schedule.status.conditions, "Ready")
        assert found is not None
        return found.status, found.reason

    # What happens

    def end(self, name: str, state: RunState = RunState.SUCCEEDED) -> None:
        """The Run ends and is settled."""
        run = self.runs[name]
        wishes = conditions.run_finished(state)
        status = run.status.model_copy(
            update={
                "state": state,
                "completion_state": "Succeeded" if state is RunState.SUCCEEDED else "Failed",
                "end_time": self.api.now,
                "conditions": conditions.apply((), wishes, generation=1, now=self.api.now),
            }
        )
        self.api.put(run.model_copy(update={"status": status}))

    def pass_time(self, **units: float) -> None:
        self.api.now += timedelta(**units)

    async def reconcile(self) -> None:
        """One turn of the worker, which may be the last thing the process does."""
        try:
            with suppress(ClusterError, LeadershipLost):  # the queue brings it again
                self.again = await self.process.controller.reconcile(KEY)
        except Killed:
            self.deaths += 1
            self.restart()

        self.api.report()

    async def settle(self) -> None:
        """Turns until nothing is left to do now."""
        for _ in range(60):
            await self.reconcile()
            if self.again is None or self.again > 0.5:
                return
        raise AssertionError("there is always more to do")

    async def run_until(self, time: datetime, *, most: int = 100_000) -> None:
        """Turns as the queue would have them, until that time."""
        for _ in range(most):
            await self.settle()
            if self.again is None or self.api.now + timedelta(seconds=self.again) > time:
                self.api.now = max(self.api.now, time)
                return
            self.pass_time(seconds=self.again)
        raise AssertionError(f"{most} turns did not suffice")

    def restart(self) -> None:
        """Another process takes over; what the old one knew is lost."""
        self.api.stores.clear()
        self.process = Process(self.api, self.notes)


def stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def tick(name: str) -> datetime:
    """The tick in a Run's name."""
    return datetime.fromtimestamp(int(name.rpartition("-")[2]), UTC)
