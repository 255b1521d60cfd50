"""What becomes of an Experiment when the provider does not play along."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest

from kfp_operator.api.conditions import find
from kfp_operator.api.experiment import Experiment
from kfp_operator.api.meta import Model, Resource
from kfp_operator.errors import Conflict, InvalidSpec, NotFound, Permanent, Retryable
from kfp_operator.operator.backends import Backends
from kfp_operator.operator.experiment_controller import ExperimentController
from kfp_operator.operator.store import Key, Store
from kfp_operator.providers.protocol import ExperimentDescription
from tests import builders as b
from tests.doubles.world import Fate, SimulatedBackend

R = TypeVar("R", bound=Resource)
KEY = Key("Experiment", "team", "penguins")


class Keeping(SimulatedBackend):
    """A provider that keeps experiments by name, and can lose an answer after it did what it was asked."""

    keeps_experiments = True

    def __init__(self, now: Any) -> None:
        super().__init__(Fate(), now)
        self.kept: dict[str, str] = {}
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.lost_answer = False

    async def ensure_experiment(self, experiment: ExperimentDescription) -> str:
        self.calls.append("ensure")
        if self.error is not None:
            raise self.error
        name = f"{experiment.namespace}/{experiment.name}"
        made = self.kept.setdefault(name, f"exp-{len(self.kept) + 1}")
        if self.lost_answer:
            raise Retryable("no answer")
        return made

    async def delete_experiment(self, provider_id: str) -> None:
        self.calls.append("delete")
        if self.error is not None:
            raise self.error
        self.kept = {name: kept for name, kept in self.kept.items() if kept != provider_id}


class Objects:
    """One Experiment at an API server that refuses writes to an older version of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.present: Experiment | None = None

    def put(self, experiment: Experiment) -> None:
        """As a user's edit: the watch tells it."""
        version = int(self.present.metadata.resource_version) + 1 if self.present is not None else 1
        metadata = experiment.metadata.model_copy(update={"resource_version": str(version)})
        self.present = experiment.model_copy(update={"metadata": metadata})
        if self.present.metadata.deletion_timestamp is not None and not self.present.metadata.finalizers:
            self.present = None
            self._store.drop(KEY)
        else:
            self._store.put(self.present)

    async def get(self, key: Key) -> Resource:
        if self.present is None:
            raise NotFound("gone", status=404)
        return self.present

    async def patch_metadata(self, resource: R, metadata: Mapping[str, Any]) -> R:
        return self._patch(resource, {"metadata": resource.metadata.model_copy(update=dict(metadata))})

    async def patch_status(self, resource: R, status: Model) -> R:
        return self._patch(resource, {"status": status})

    def _patch(self, resource: R, update: dict[str, Any]) -> R:
        if self.present is None:
            raise NotFound("gone", status=404)
        if resource.metadata.resource_version != self.present.metadata.resource_version:
            raise Conflict("it is newer", status=409)
        changed = resource.model_copy(update=update)
        assert isinstance(changed, Experiment)
        self.put(changed)
        return changed.model_copy(update={"metadata": self.present.metadata}) if self.present is not None else changed


class Notes:
    """Kubernetes Events as (type, reason)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def normal(self, resource: Resource, reason: str, message: str) -> None:
        self.told.append(("Normal", reason))

    def warning(self, resource: Resource, reason: str, message: str) -> None:
        self.told.append(("Warning", reason))


class Rig:
    """A controller and what it works on."""

    def __init__(self) -> None:
        self.time = b.NOW
        self.provider = Keeping(self.now)
        self.store = Store(b.NAMES)
        self.store.put(b.provider().resource)
        self.objects = Objects(self.store)
        self.events = Notes()
        self.woken: list[Key] = []
        self.backends = Backends(lambda _: self.provider, now=self.now, on_update=lambda _: None, on_trouble=lambda _: None)
        self.controller = self.process()

    def process(self) -> ExperimentController:
        """A controller that remembers nothing."""
        return ExperimentController(
            store=self.store,
            objects=self.objects,
            backends=self.backends,
            recorder=self.events,
            guard=lambda: None,
            now=self.now,
            names=b.NAMES,
            wake=self.woken.append,
        )

    def now(self) -> datetime:
        return self.time

    def change(self, **parts: dict[str, Any]) -> None:
        """Edit the Experiment as a user does."""
        present = self.experiment
        update = {part: getattr(present, part).model_copy(update=changes) for part, changes in parts.items()}
        self.objects.put(present.model_copy(update=update))

    def delete(self) -> None:
        self.change(metadata={"deletion_timestamp": self.time})

    async def reconcile(self) -> float | None:
        """One turn, after the provider's first check."""
        if self.backends.check_of("mlops/local") is None:
            await self.backends.check(b.provider().resource)
        return await self.controller.reconcile(KEY)

    @property
    def experiment(self) -> Experiment:
        assert self.objects.present is not None
        return self.objects.present

    @property
    def reason(self) -> str:
        ready = find(self.experiment.status.conditions, "Ready")
        assert ready is not None
        return ready.reason


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    made.objects.put(b.experiment(spec={"description": "An experiment"}))
    yield made
    await made.backends.close_all()


async def test_an_experiment_is_held_made_and_shown(rig: Rig) -> None:
    assert await rig.reconcile() is None
    assert rig.provider.kept == {"team/penguins": "exp-1"}
    assert (rig.experiment.metadata.finalizers, rig.experiment.status.provider_id) == ([b.NAMES.finalizer], "exp-1")
    assert rig.events.told == [("Normal", "Synchronized")]
    assert await rig.reconcile() is None
    assert rig.provider.calls == ["ensure"], "nothing is left to do"


async def test_an_experiment_whose_answer_was_lost_is_found_again_and_not_made_twice(rig: Rig) -> None:
    rig.provider.lost_answer = True
    assert await rig.reconcile() == 1
    assert rig.reason == "ProviderRetrying"
    rig.provider.lost_answer = False
    rig.time += timedelta(seconds=1)
    assert await rig.reconcile() is None
    assert rig.provider.kept == {"team/penguins": "exp-1"}
    assert rig.experiment.status.provider_id == "exp-1"


async def test_a_new_process_finds_the_experiment_and_writes_nothing(rig: Rig) -> None:
    await rig.reconcile()
    version = rig.experiment.metadata.resource_version
    rig.controller = rig.process()
    assert await rig.reconcile() is None
    assert (rig.experiment.metadata.resource_version, rig.provider.calls) == (version, ["ensure", "ensure"])


async def test_one_that_was_deleted_at_the_backend_is_made_again_for_the_provider_as_edited(rig: Rig) -> None:
    await rig.reconcile()
    rig.provider.kept = {"other/other": "exp-1"}
    edited = b.provider().resource
    edited = edited.model_copy(update={"metadata": edited.metadata.model_copy(update={"generation": 2, "resource_version": "2"})})
    rig.store.put(edited)
    await rig.backends.check(edited)
    assert await rig.reconcile() is None
    assert rig.experiment.status.provider_id == "exp-2"


async def test_what_the_provider_cannot_do_now_is_retried_later_and_later(rig: Rig) -> None:
    rig.provider.error = Retryable("503")
    assert [await rig.reconcile(), await rig.reconcile()] == [1, 1]
    assert rig.provider.calls == ["ensure"]
    rig.time += timedelta(seconds=1)
    assert await rig.reconcile() == 2
    assert rig.events.told == [("Warning", "ProviderRetrying")]


@pytest.mark.parametrize("error", [Permanent("too long", reason="InvalidName"), InvalidSpec("too long", reason="InvalidName")])
async def test_what_the_provider_refuses_is_shown_and_tried_at_once_after_an_edit(rig: Rig, error: Exception) -> None:
    rig.provider.error = error
    assert await rig.reconcile() == 60
    assert (rig.reason, rig.experiment.status.message) == ("InvalidName", "too long")
    rig.provider.error = None
    rig.change(spec={"description": "short"})
    assert await rig.reconcile() is None
    assert rig.reason == "Succeeded"


async def test_an_edited_description_makes_nothing_new_at_the_backend_and_is_said(rig: Rig) -> None:
    await rig.reconcile()
    rig.change(spec={"description": "Another"}, metadata={"generation": 2})
    assert await rig.reconcile() is None
    assert rig.provider.calls == ["ensure"]
    assert "cannot be changed there" in rig.experiment.status.message
    assert rig.events.told[-1] == ("Warning", "DescriptionKept")


async def test_a_deleted_experiment_goes_at_the_backend_and_then_here(rig: Rig) -> None:
    await rig.reconcile()
    rig.delete()
    await rig.reconcile()
    assert (rig.provider.kept, rig.objects.present) == ({}, None)


async def test_a_deletion_outlasts_an_outage_of_the_backend(rig: Rig) -> None:
    await rig.reconcile()
    rig.provider.error = Retryable("no route to host")
    rig.delete()
    assert await rig.reconcile() == 1
    assert "no route to host" in rig.experiment.status.message
    rig.provider.error = None
    rig.time += timedelta(seconds=1)
    await rig.reconcile()
    assert (rig.provider.kept, rig.objects.present) == ({}, None)


async def test_nothing_stays_at_the_backend_of_an_experiment_deleted_before_its_answer_came(rig: Rig) -> None:
    rig.provider.lost_answer = True
    await rig.reconcile()
    rig.provider.lost_answer = False
    rig.delete()
    await rig.reconcile()
    assert (rig.provider.kept, rig.objects.present) == ({}, None)


async def test_an_experiment_made_again_under_its_name_is_made_again_there(rig: Rig) -> None:
    """The deletion of the first and the second may be seen in one look."""
    await rig.reconcile()
    rig.provider.kept = {"other/other": "exp-1"}
    rig.objects.present = None
    rig.store.drop(KEY, "experiment-uid")
    made = b.experiment()
    rig.objects.put(made.model_copy(update={"metadata": made.metadata.model_copy(update={"uid": "another-uid"})}))
    assert await rig.reconcile() is None
    assert rig.experiment.status.provider_id == "exp-2"


async def test_an_experiment_edited_meanwhile_is_looked_at_again(rig: Rig) -> None:
    stale = rig.experiment
    rig.change(spec={"description": "edited"})
    rig.store.drop(KEY)
    rig.store = Store(b.NAMES)
    rig.store.put(b.provider().resource)
    rig.store.put(stale)
    rig.objects._store = rig.store
    rig.controller = rig.process()
    assert await rig.reconcile() is None
    assert rig.reason == "Succeeded"
    assert rig.experiment.spec.description == "edited"
