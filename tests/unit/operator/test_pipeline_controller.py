"""What becomes of a Pipeline when the API server or the provider does not play along."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest

from kfp_operator.api.conditions import find
from kfp_operator.api.meta import Model, Resource
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.revision import Revision, digest
from kfp_operator.api.run_schedule import RunSchedule
from kfp_operator.errors import ClusterError, Forbidden, InvalidSpec, NotFound, Permanent, Retryable, Unprocessable
from kfp_operator.operator.backends import Backends
from kfp_operator.operator.pipeline_controller import PipelineController
from kfp_operator.operator.store import Key, Store
from kfp_operator.providers.protocol import PipelineVersion
from kfp_operator.reconcile.pipeline import KeptRevision
from tests import builders as b
from tests.doubles.world import SPEC, Fate, Quiet, SimulatedBackend

R = TypeVar("R", bound=Resource)
KEY = Key("Pipeline", "team", "train")


class Objects:
    """Takes every status."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._version = 100

    async def get(self, key: Key) -> Resource:
        found = self._store.get(key)
        if not isinstance(found, Resource):
            raise NotFound("gone", status=404)
        return found

    async def patch_metadata(self, resource: R, metadata: Mapping[str, Any]) -> R:
        self._version = max(self._version, int(resource.metadata.resource_version)) + 1
        changed = resource.metadata.model_copy(update={"resource_version": str(self._version), "finalizers": metadata["finalizers"]})
        return resource.model_copy(update={"metadata": changed})

    async def patch_status(self, resource: R, status: Model) -> R:
        self._version = max(self._version, int(resource.metadata.resource_version)) + 1
        metadata = resource.metadata.model_copy(update={"resource_version": str(self._version)})
        return resource.model_copy(update={"status": status, "metadata": metadata})

    async def delete(self, key: Key, uid: str) -> None:
        raise AssertionError("Pipelines are not deleted by the operator")


@dataclass
class Revisions:
    """The revisions of each Pipeline by uid; `refusal` is what the next creations meet."""

    kept: dict[str, list[KeptRevision]] = field(default_factory=dict)
    refusal: Exception | None = None

    async def list(self, pipeline: Pipeline) -> Sequence[KeptRevision]:
        return list(self.kept.get(pipeline.metadata.uid, []))

    async def load(self, namespace: str, pipeline: str, version: str) -> Revision:
        raise AssertionError("only Runs load revisions")

    async def create(self, pipeline: Pipeline, version: str, documents: Mapping[str, Any], number: int) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.kept.setdefault(pipeline.metadata.uid, []).append(KeptRevision(f"train-{version}", version, number, digest(documents)))

    async def delete(self, namespace: str, name: str) -> None:
        for kept in self.kept.values():
            kept[:] = [revision for revision in kept if revision.name != name]


class Choosy(SimulatedBackend):
    """A provider that refuses some pipelines for good."""

    refuses = ""
    asked = 0
    away = False
    pruned: tuple[str, set[str]] | None = None
    deleted = ""

    async def prune_pipeline(self, pipeline: PipelineVersion, keep: Collection[str]) -> None:
        if self.away:
            raise Retryable("the server does not answer")
        self.pruned = (pipeline.version, set(keep))

    async def delete_pipeline(self, provider_id: str) -> None:
        self.deleted = provider_id

    async def ensure_pipeline(self, pipeline: PipelineVersion) -> str:
        self.asked += 1
        if pipeline.spec["pipelineInfo"]["name"] == self.refuses:
            raise Permanent("task t is a container component", reason="UnsupportedComponent")
        return ""


class Rig:
    """A controller and what it works on."""

    def __init__(self) -> None:
        self.time = b.NOW
        self.provider = Choosy(Fate(), self.now)
        self.store = Store(b.NAMES)
        self.store.put(b.provider().resource)
        self.revisions = Revisions()
        self.backends = Backends(lambda _: self.provider, now=self.now, on_update=lambda _: None, on_trouble=lambda _: None)
        self.controller = PipelineController(
            store=self.store,
            objects=Objects(self.store),
            revisions=self.revisions,
            read_config_map=self._no_config_map,
            backends=self.backends,
            recorder=Quiet(),
            guard=lambda: None,
            now=self.now,
            names=b.NAMES,
            wake=lambda _: None,
        )

    def now(self) -> datetime:
        return self.time

    async def _no_config_map(self, namespace: str, name: str) -> Mapping[str, str | bytes]:
        raise NotFound(name, status=404)

    def apply(self, name: str = "train", *, uid: str = "pipeline-uid", version: int = 1) -> None:
        """Put the Pipeline into the store as the watch does."""
        spec = SPEC | {"pipelineInfo": {"name": name}}
        made = b.pipeline(spec={"pipelineSpec": spec}, status={})
        metadata = made.metadata.model_copy(update={"uid": uid, "resource_version": str(version)})
        self.store.put(made.model_copy(update={"metadata": metadata}))

    async def reconcile(self) -> float | None:
        """One turn, after the provider's first check."""
        if self.backends.check_of("mlops/local") is None:
            await self.backends.check(b.provider().resource)
        return await self.controller.reconcile(KEY)

    @property
    def shown(self) -> tuple[str, str, bool]:
        """Reason of Ready, message, and whether a person must act."""
        found = self.store.get(KEY)
        assert isinstance(found, Pipeline)
        ready = find(found.status.conditions, "Ready")
        assert ready is not None
        return ready.reason, found.status.message, find(found.status.conditions, "Stalled") is not None


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    await made.backends.close_all()


async def test_a_pipeline_too_large_to_be_kept_fails_and_says_so(rig: Rig) -> None:
    rig.apply()
    rig.revisions.refusal = InvalidSpec("is 2000000 bytes when compressed", field="spec.pipelineSpec", reason="PipelineTooLarge")
    assert await rig.reconcile() is None
    assert rig.shown == ("PipelineTooLarge", "spec.pipelineSpec: is 2000000 bytes when compressed", True)


@pytest.mark.parametrize("error", [Forbidden("exceeded quota", status=403), Unprocessable("too large", status=422)])
async def test_a_version_that_the_api_server_does_not_take_is_shown_and_tried_again(rig: Rig, error: ClusterError) -> None:
    rig.apply()
    rig.revisions.refusal = error
    assert await rig.reconcile() == 5
    assert rig.shown == ("RevisionRefused", f"its version cannot be kept: {error}", False)
    rig.revisions.refusal = None
    assert await rig.reconcile() is None
    assert rig.shown == ("Succeeded", "", False)


async def test_a_pipeline_that_the_provider_refuses_fails_and_is_tried_at_once_after_an_edit(rig: Rig) -> None:
    rig.provider.refuses = "train"
    rig.apply()
    assert await rig.reconcile() == 60
    assert rig.shown == ("UnsupportedComponent", "task t is a container component", True)
    assert await rig.reconcile() == 60
    assert rig.provider.asked == 1
    rig.time += timedelta(seconds=60)
    await rig.reconcile()
    assert rig.provider.asked == 2, "what the provider refuses may change at its side"
    rig.apply("other", version=200)
    assert await rig.reconcile() is None
    assert rig.shown == ("Succeeded", "", False)


async def test_a_pipeline_applied_anew_at_once_keeps_a_version_of_its_own(rig: Rig) -> None:
    """That of the one before is garbage-collected with it; its deletion and the new one may be seen in one look."""
    rig.apply()
    await rig.reconcile()
    rig.store.drop(KEY, "pipeline-uid")
    rig.apply(uid="another-uid", version=200)
    assert await rig.reconcile() is None
    assert len(rig.revisions.kept["another-uid"]) == 1


async def test_a_version_that_a_schedule_names_outlives_the_history_limit(rig: Rig) -> None:
    rig.revisions.kept["pipeline-uid"] = [KeptRevision(f"train-v{n}", f"v{n}", n, f"d{n}") for n in range(1, 10)]
    metadata = {"name": "nightly", "namespace": "team", "uid": "schedule-uid", "resourceVersion": "1"}
    spec = {"pipeline": "train:v2", "schedule": {"cronExpression": "@daily"}}
    rig.store.put(RunSchedule.parse({"metadata": metadata, "spec": spec}))
    rig.apply()
    await rig.reconcile()
    assert [revision.version for revision in rig.revisions.kept["pipeline-uid"]][:2] == ["v2", "v6"]


def crowded(rig: Rig) -> None:
    """A Pipeline of a provider that keeps versions, with more of them than are to be kept."""
    rig.provider.keeps_pipelines = True
    rig.revisions.kept["pipeline-uid"] = [KeptRevision(f"train-v{n}", f"v{n}", n, f"d{n}") for n in range(1, 8)]
    rig.apply()


async def test_versions_that_are_pruned_go_at_the_provider_too(rig: Rig) -> None:
    crowded(rig)
    assert await rig.reconcile() is None
    present = rig.revisions.kept["pipeline-uid"][-1].version
    assert rig.provider.pruned == (present, {"v3", "v4", "v5", "v6", "v7", present})
    assert [revision.version for revision in rig.revisions.kept["pipeline-uid"]] == ["v3", "v4", "v5", "v6", "v7", present]


async def test_versions_that_the_provider_cannot_prune_now_are_pruned_later_and_hold_nothing_up(rig: Rig) -> None:
    crowded(rig)
    rig.provider.away = True
    again = await rig.reconcile()
    assert again is not None
    assert rig.shown == ("Succeeded", "", False)
    assert len(rig.revisions.kept["pipeline-uid"]) == 8
    rig.provider.away = False
    rig.time += timedelta(seconds=again)
    await rig.reconcile()
    assert len(rig.revisions.kept["pipeline-uid"]) == 6


async def test_a_pipeline_whose_id_was_never_told_is_deleted_by_its_name(rig: Rig) -> None:
    made = b.pipeline(spec={"pipelineSpec": SPEC}, status={}, deleted=True)
    held = made.metadata.model_copy(update={"finalizers": [b.NAMES.finalizer]})
    rig.store.put(made.model_copy(update={"metadata": held}))
    await rig.reconcile()
    assert rig.provider.deleted == "team/train"


async def test_a_pipeline_built_in_an_image_says_what_to_do_and_is_not_looked_at_again(rig: Rig) -> None:
    framework = {"name": "kfpsdk", "parameters": {"pipeline": "iris.train"}}
    rig.store.put(b.pipeline(spec={"pipelineSpec": None, "image": "iris:v1.2", "framework": framework}, status={}))
    assert await rig.reconcile() is None
    reason, message, stalled = rig.shown
    assert (reason, stalled) == ("CompileNotSupported", True)
    assert message.startswith("spec.image: version v1.2-")
    assert "kfp-operator pipelines build" in message
    written = rig.store.get(KEY)
    assert await rig.reconcile() is None
    assert rig.store.get(KEY) is written, "nothing is written twice"
