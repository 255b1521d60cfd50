"""Carries out what `reconcile.pipeline` decides."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kfp_operator.api import hashing
from kfp_operator.api.names import Names
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.provider import Provider
from kfp_operator.api.revision import digest
from kfp_operator.api.run import Run
from kfp_operator.api.run_configuration import RunConfiguration
from kfp_operator.api.run_schedule import RunSchedule
from kfp_operator.errors import (
    ClusterError,
    Conflict,
    Forbidden,
    InvalidSpec,
    NotFound,
    ProviderError,
    Retryable,
    Unprocessable,
)
from kfp_operator.operator.backends import Backends
from kfp_operator.operator.backoff import Trouble
from kfp_operator.operator.ports import Guard, Now, Objects, Recorder, Revisions, Wake
from kfp_operator.operator.store import Key, Store
from kfp_operator.providers import ir
from kfp_operator.providers.ir import PipelineIR
from kfp_operator.providers.protocol import PipelineVersion
from kfp_operator.reconcile import pipeline as decisions
from kfp_operator.reconcile.pipeline import KeptRevision, PipelineSituation, Source
from kfp_operator.reconcile.run_configuration_runs import versions_used

log = logging.getLogger(__name__)

STEPS = 30
MAX_BACKOFF = 60.0
UNCHECKED_AGAIN = 5.0

ReadConfigMap = Callable[[str, str], Awaitable[Mapping[str, str | bytes]]]


@dataclass(slots=True)
class Desk:
    """What this process knows of one Pipeline."""

    uid: str = ""
    revisions: Sequence[KeptRevision] | None = None
    ensured: tuple[str, str] = ("", "")
    """Version and the provider id it has."""
    provider_generation: int = 0
    tried: tuple[str, int, bool] = ("", 0, False)
    """What trouble is about: version, generation of the provider, deletion."""
    trouble: Trouble = field(default_factory=Trouble)


class _NotYet(Exception):
    """The source is not there yet."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class PipelineController:
    """Reconciles Pipelines."""

    def __init__(
        self,
        *,
        store: Store,
        objects: Objects,
        revisions: Revisions,
        read_config_map: ReadConfigMap,
        backends: Backends,
        recorder: Recorder,
        guard: Guard,
        now: Now,
        names: Names,
        wake: Wake,
    ) -> None:
        self._store = store
        self._objects = objects
        self._revisions = revisions
        self._read_config_map = read_config_map
        self._backends = backends
        self._recorder = recorder
        self._guard = guard
        self._now = now
        self._names = names
        self._wake = wake
        self.held: set[Key] = set()
        """Pipelines to be looked at when something refers to them no longer."""
        self._desks: dict[str, Desk] = {}
        self._versions: dict[tuple[str, str], frozenset[str]] = {}

    def versions_of(self, namespace: str, name: str) -> frozenset[str]:
        """Versions of the Pipeline that can be run, as last seen."""
        return self._versions.get((namespace, name), frozenset())

    async def reconcile(self, key: Key) -> float | None:
        """Take the Pipeline as far as it goes; seconds after which to look again."""
        pipeline = self._store.get(key)
        if not isinstance(pipeline, Pipeline):
            self.held.discard(key)
            self._desks.pop(f"{key.namespace}/{key.name}", None)
            self._versions.pop((key.namespace, key.name), None)
            return None
        desk = self._desks.get(pipeline.metadata.full_name)
        if desk is None or desk.uid != pipeline.metadata.uid:  # one of an earlier Pipeline of this name knows revisions that go with it
            desk = self._desks[pipeline.metadata.full_name] = Desk(pipeline.metadata.uid)
        if pipeline.metadata.deletion_timestamp is None:
            await self._refresh(pipeline, desk)
        source = await self._source(pipeline)
        self._forget_trouble(desk, pipeline, source)
        for _ in range(STEPS):
            if self._store.get(Key.parse("Provider", pipeline.spec.provider)) and self._backends.check_of(pipeline.spec.provider) is None:
                return UNCHECKED_AGAIN  # the Provider's first check wakes it
            decision = decisions.decide_pipeline(self._situation(pipeline, desk, source))
            action = decision.action
            (self.held.add if decision.held else self.held.discard)(key)
            if action is None:
                return decision.again
            remote = isinstance(action, decisions.EnsureAtProvider | decisions.DeleteAtProvider | decisions.Prune)
            if remote and (left := desk.trouble.left(self._now())) > 0:
                return left
            self._guard()
            try:
                after = await self._act(pipeline, desk, source, action)
            except (Conflict, NotFound):
                after = await self._fresh(key)
            except ProviderError as error:
                desk.trouble = desk.trouble.after(error, self._now(), most=MAX_BACKOFF)
                continue
            except InvalidSpec as error:
                source = Source(problem=str(error), reason=error.reason)
                continue
            except (Forbidden, Unprocessable) as error:
                if not isinstance(action, decisions.Keep):
                    raise
                source = Source(problem=f"its version cannot be kept: {error}", reason="RevisionRefused", waits=True)
                continue
            if after is None:
                return None
            if after.metadata.uid != desk.uid:
                return 0
            pipeline = after
        log.error("Pipeline %s needs too many steps, it is put off; please report this", pipeline.metadata.full_name)
        return MAX_BACKOFF

    async def _act(self, pipeline: Pipeline, desk: Desk, source: Source, action: decisions.PipelineAction) -> Pipeline | None:
        names = self._names
        match action:
            case decisions.AddFinalizer():
                return self._stored(
                    await self._objects.patch_metadata(
                        pipeline, {"finalizers": [*names.released(pipeline.metadata.finalizers), names.finalizer]}
                    )
                )
            case decisions.RemoveFinalizer():
                await self._objects.patch_metadata(pipeline, {"finalizers": names.released(pipeline.metadata.finalizers)})
                return None
            case decisions.Keep(number):
                await self._revisions.create(pipeline, source.version, source.documents or {}, number)
                await self._refresh(pipeline, desk, anew=True)
            case decisions.EnsureAtProvider():
                backend = self._backends.get(pipeline.spec.provider)
                if backend is None:
                    raise Retryable(f"Provider {pipeline.spec.provider} is not open", reason="ProviderNotReady")
                documents = source.documents or {}
                provider_id = await backend.provider.ensure_pipeline(
                    PipelineVersion(
                        pipeline.metadata.namespace,
                        pipeline.metadata.name,
                        source.version,
                        documents.get("pipelineSpec", {}),
                        documents.get("platformSpec"),
                    )
                )
                desk.ensured, desk.provider_generation = (source.version, provider_id), backend.generation
                desk.trouble = Trouble()
            case decisions.DeleteAtProvider():
                backend = self._backends.get(pipeline.spec.provider)
                if backend is None:
                    raise Retryable(f"Provider {pipeline.spec.provider} is not open", reason="ProviderNotReady")
                await backend.provider.delete_pipeline(pipeline.status.provider_id or pipeline.metadata.full_name)
                await self._objects.patch_metadata(pipeline, {"finalizers": names.released(pipeline.metadata.finalizers)})
                return None
            case decisions.Prune(revisions):
                await self._prune_at_provider(pipeline, desk, source, revisions)
                for name in revisions:
                    await self._revisions.delete(pipeline.metadata.namespace, name)
                await self._refresh(pipeline, desk, anew=True)
            case decisions.WritePipelineStatus():
                return await self._write(pipeline, action)
        return pipeline

    async def _prune_at_provider(self, pipeline: Pipeline, desk: Desk, source: Source, revisions: Sequence[str]) -> None:
        """Let the provider forget the versions too; first, so that what fails is tried again."""
        backend = self._backends.get(pipeline.spec.provider)
        if backend is None or not backend.provider.keeps_pipelines:
            return
        present = PipelineVersion(pipeline.metadata.namespace, pipeline.metadata.name, source.version, {}, None)
        await backend.provider.prune_pipeline(present, {r.version for r in desk.revisions or () if r.name not in revisions})
        desk.trouble = Trouble()

    async def _write(self, pipeline: Pipeline, action: decisions.WritePipelineStatus) -> Pipeline:
        written = await self._objects.patch_status(pipeline, action.status)
        if written.status.version != pipeline.status.version:
            self._recorder.normal(pipeline, "Synchronized", f"version {written.status.version} is ready")
        elif written.status.message and written.status.message != pipeline.status.message:
            self._recorder.warning(pipeline, _reason(written), written.status.message)
        self._stored(written)
        self._wake_runs(written)
        return written

    def _wake_runs(self, pipeline: Pipeline) -> None:
        for key in self._store.referring(Key.of(pipeline)):
            self._wake(key)

    def _stored(self, pipeline: Pipeline) -> Pipeline:
        self._store.put(pipeline)
        return pipeline

    async def _fresh(self, key: Key) -> Pipeline | None:
        try:
            fresh = await self._objects.get(key)
        except NotFound:
            self._store.drop(key)
            return None
        self._store.put(fresh)
        return fresh if isinstance(fresh, Pipeline) else None

    async def _refresh(self, pipeline: Pipeline, desk: Desk, *, anew: bool = False) -> None:
        if desk.revisions is not None and not anew:
            return
        desk.revisions = await self._revisions.list(pipeline)
        versions = frozenset(r.version for r in desk.revisions)
        place = (pipeline.metadata.namespace, pipeline.metadata.name)
        if self._versions.get(place) != versions:
            self._versions[place] = versions
            self._wake_runs(pipeline)

    async def _source(self, pipeline: Pipeline) -> Source:
        try:
            compiled = await self._compiled(pipeline)
        except _NotYet as error:
            return Source(problem=str(error), reason=error.reason, waits=True)
        except ClusterError as error:
            return Source(problem=f"the ConfigMap cannot be read: {error}", reason="ConfigMapUnreadable", waits=True)
        except InvalidSpec as error:
            return Source(problem=str(error), reason=error.reason)
        documents = compiled.documents()
        return Source(version=hashing.inline_version(documents), documents=documents)

    async def _compiled(self, pipeline: Pipeline) -> PipelineIR:
        spec, namespace = pipeline.spec, pipeline.metadata.namespace
        if spec.image:
            raise InvalidSpec(
                f"version {hashing.image_version(spec)} would be compiled in {spec.image}, which this operator cannot do yet; "
                "compile the code with kfp-operator pipelines build, and apply what it prints, which has spec.pipelineSpec instead",
                field="spec.image",
                reason="CompileNotSupported",
            )
        if spec.pipeline_spec is not None:
            return ir.parse_ir(spec.pipeline_spec, field="spec.pipelineSpec")
        ref = spec.pipeline_spec_from.config_map_key_ref if spec.pipeline_spec_from is not None else None
        if ref is None:
            raise InvalidSpec("names no source; set spec.pipelineSpec or spec.pipelineSpecFrom.configMapKeyRef", field="spec")
        try:
            found = await self._read_config_map(namespace, ref.name)
        except NotFound as error:
            raise _NotYet("ConfigMapNotFound", f"waits for ConfigMap {namespace}/{ref.name}, which does not exist") from error
        if ref.key not in found:
            keys = ", ".join(sorted(found)) or "none"
            raise _NotYet("ConfigMapKeyNotFound", f"waits for key {ref.key} in ConfigMap {namespace}/{ref.name}, which has {keys}")
        return await asyncio.to_thread(ir.parse_text, found[ref.key], field=f"ConfigMap {namespace}/{ref.name}[{ref.key}]")

    def _situation(self, pipeline: Pipeline, desk: Desk, source: Source) -> PipelineSituation:
        namespace, _, name = pipeline.spec.provider.partition("/")
        resource = self._store.get(Key("Provider", namespace, name))
        backend = self._backends.get(pipeline.spec.provider)
        ensured = desk.ensured[0] == source.version and backend is not None and desk.provider_generation == backend.generation
        return PipelineSituation(
            pipeline=pipeline,
            provider=self._backends.view(resource if isinstance(resource, Provider) else None),
            keeps_pipelines=backend is not None and backend.provider.keeps_pipelines,
            source=source,
            digest=digest(source.documents) if source.documents is not None else "",
            revisions=desk.revisions or (),
            in_use=self._in_use(pipeline),
            known_at_provider=desk.ensured[1] if ensured else None,
            trouble=desk.trouble.message,
            refused=desk.trouble.refused,
            now=self._now(),
            names=self._names,
        )

    def _in_use(self, pipeline: Pipeline) -> frozenset[str]:
        used = set()
        for key in self._store.referring(Key.of(pipeline)):
            user = self._store.get(key)
            if isinstance(user, Run) and user.status.completion_state is None:
                used |= {user.spec.pipeline_version, user.metadata.labels.get(self._names.pipeline_version, "")}
            elif isinstance(user, RunConfiguration):
                used |= versions_used(user)
            elif isinstance(user, RunSchedule):
                used.add(user.spec.template.pipeline_version)
        return frozenset(used - {""})

    def _forget_trouble(self, desk: Desk, pipeline: Pipeline, source: Source) -> None:
        """What was edited, at either side, is tried at once."""
        backend = self._backends.get(pipeline.spec.provider)
        tried = (source.version, backend.generation if backend is not None else 0, pipeline.metadata.deletion_timestamp is not None)
        if desk.tried != tried:
            desk.tried, desk.trouble = tried, Trouble()


def _reason(pipeline: Pipeline) -> str:
    return next((c.reason for c in pipeline.status.conditions if c.type == "Ready"), "Waiting")
