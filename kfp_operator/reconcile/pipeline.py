"""Decides what to do next for a Pipeline. Pure.

Steps: read the compiled spec (`LoadSource` when it is in a ConfigMap), keep it as a revision (`Keep`), make it known to the provider
(`EnsureAtProvider`), write the status, prune old revisions (`Prune`). A Pipeline whose provider keeps objects for it carries a
finalizer; others need none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from kfp_operator.api import conditions
from kfp_operator.api.conditions import Wish
from kfp_operator.api.names import Names
from kfp_operator.api.pipeline import Pipeline, PipelineStatus
from kfp_operator.api.states import SyncState
from kfp_operator.reconcile.blockers import allows
from kfp_operator.reconcile.situation import ProviderView

SOURCE_AGAIN = 60.0
"""Seconds after which a ConfigMap is read again: they are not watched."""


@dataclass(frozen=True, slots=True)
class Source:
    """The compiled spec as found, or why it cannot be used."""

    version: str = ""
    documents: Mapping[str, Any] | None = None
    problem: str = ""
    reason: str = ""
    waits: bool = False
    """The problem may pass: the ConfigMap is missing or the API server did not answer."""


@dataclass(frozen=True, slots=True)
class KeptRevision:
    """A revision in the cluster."""

    name: str
    version: str
    number: int
    digest: str


@dataclass(frozen=True, slots=True)
class PipelineSituation:
    """All that a decision depends on."""

    pipeline: Pipeline
    provider: ProviderView | None
    keeps_pipelines: bool
    """Whether the provider has objects of its own for pipelines."""
    source: Source
    digest: str
    """Of source.documents."""
    revisions: Sequence[KeptRevision]
    in_use: frozenset[str]
    """Versions that unfinished Runs are bound to or name."""
    known_at_provider: str | None
    """Provider id (backends without pipelines of their own have none: "") under which this process made the present version known."""
    trouble: str
    """The provider's last failure, for people."""
    refused: str
    """Its reason when it is final: the provider will not take this version. "": it may pass."""
    now: datetime
    names: Names


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Put the finalizer on."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let the object go."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Create the ControllerRevision of the present version."""

    number: int


@dataclass(frozen=True, slots=True)
class EnsureAtProvider:
    """Make the present version known to the provider."""


@dataclass(frozen=True, slots=True)
class DeleteAtProvider:
    """Remove the pipeline at the provider."""


@dataclass(frozen=True, slots=True)
class Prune:
    """Delete revisions."""

    names: Sequence[str]


@dataclass(frozen=True, slots=True)
class WritePipelineStatus:
    """Patch the status to this."""

    status: PipelineStatus


PipelineAction = AddFinalizer | RemoveFinalizer | Keep | EnsureAtProvider | DeleteAtProvider | Prune | WritePipelineStatus


@dataclass(frozen=True, slots=True)
class PipelineDecision:
    """The next step, if any, and when to look again (seconds)."""

    action: PipelineAction | None = None
    again: float | None = None
    held: bool = False
    """Something is left to do once a Run has ended that it is kept for."""


def decide_pipeline(s: PipelineSituation) -> PipelineDecision:
    """The next step for the Pipeline."""
    pipeline = s.pipeline
    finalizer = s.names.finalizer in pipeline.metadata.finalizers
    if pipeline.metadata.deletion_timestamp is not None:
        return _deleted(s)
    again = SOURCE_AGAIN if pipeline.spec.pipeline_spec_from is not None else None
    if s.source.documents is None:
        if s.source.waits:
            return _write(
                s,
                conditions.progressing(s.source.reason, s.source.problem, state=_syncing(pipeline)),
                _syncing(pipeline),
                s.source.problem,
                again=5,
            )
        return _write(s, conditions.failed(s.source.reason, s.source.problem), SyncState.FAILED, s.source.problem, again=again)
    if blocker := provider_blocker(s.provider, pipeline.spec.provider, pipeline.metadata.namespace, _syncing(pipeline)):
        return _write(s, blocker, _syncing(pipeline), blocker[0].message, again=again)
    clash = next((r for r in s.revisions if r.version == s.source.version and r.digest != s.digest), None)
    if clash is not None:
        message = (
            f"version {s.source.version} is taken by another compiled pipeline (ControllerRevision {clash.name}): "
            "the hash is six digits long; change anything in the pipeline, as its description"
        )
        return _write(s, conditions.failed("VersionCollision", message), SyncState.FAILED, message, again=again)
    if s.keeps_pipelines and not finalizer:
        return PipelineDecision(AddFinalizer())
    if not any(r.version == s.source.version for r in s.revisions):
        return PipelineDecision(Keep(max((r.number for r in s.revisions), default=0) + 1))
    if s.known_at_provider is None:
        if s.refused:
            return _write(s, conditions.failed(s.refused, s.trouble), SyncState.FAILED, s.trouble, then=EnsureAtProvider())
        if s.trouble:
            progress = conditions.progressing("ProviderRetrying", s.trouble, state=_syncing(pipeline))
            return _write(s, progress, _syncing(pipeline), s.trouble, then=EnsureAtProvider())
        return PipelineDecision(EnsureAtProvider())
    decision = _write(s, conditions.synced(), SyncState.SUCCEEDED, "", again=again)
    if decision.action is None and (surplus := _surplus(s)):
        return PipelineDecision(Prune(surplus))
    return replace(decision, held=len(s.revisions) - 1 > s.pipeline.spec.revision_history_limit)


def _syncing(pipeline: Pipeline) -> SyncState:
    return SyncState.UPDATING if pipeline.status.version else SyncState.CREATING


def provider_blocker(provider: ProviderView | None, wanted: str, namespace: str, state: SyncState) -> list[Wish] | None:
    """What the conditions say while an object of `namespace` cannot use the Provider it wants; the first tells why. None: it can."""
    if provider is None or provider.resource.metadata.deletion_timestamp is not None:
        return conditions.progressing("ProviderNotFound", f"waits for Provider {wanted}, which does not exist; create it", state=state)
    if not allows(provider.resource, namespace):
        message = f"Provider {wanted} does not serve namespace {namespace}; its owner can add it to spec.allowedNamespaces"
        return conditions.progressing("ProviderForbidden", message, state=state, stalled=True)
    if not provider.usable:
        message = f"waits for Provider {wanted}: {provider.message or 'it is not ready'}"
        stalled = conditions.stalled(provider.resource.status.conditions)
        return conditions.progressing("ProviderNotReady", message, state=state, stalled=stalled)
    return None


def _deleted(s: PipelineSituation) -> PipelineDecision:
    if not s.names.held(s.pipeline.metadata.finalizers):
        return PipelineDecision()
    released = s.names.force_release in s.pipeline.metadata.annotations or s.pipeline.spec.deletion_policy == "Orphan"
    # with our finalizer on it the provider may have it, though no answer ever gave it an id
    never_there = not s.pipeline.status.provider_id and s.names.finalizer not in s.pipeline.metadata.finalizers
    if released or never_there or s.provider is None:
        return PipelineDecision(RemoveFinalizer())
    message = f"waits for Provider {s.pipeline.spec.provider} to delete it{': ' + s.trouble if s.trouble else ''}"
    return _write(s, conditions.deleting(message), SyncState.DELETING, message, then=DeleteAtProvider())


def _surplus(s: PipelineSituation) -> list[str]:
    """Revisions beyond the limit, oldest first; never the present one nor one in use."""
    old = sorted((r for r in s.revisions if r.version != s.source.version), key=lambda r: r.number)
    excess = len(old) - s.pipeline.spec.revision_history_limit
    return [r.name for r in old if r.version not in s.in_use][: max(excess, 0)]


def _write(
    s: PipelineSituation,
    wishes: list[Wish],
    sync: SyncState,
    message: str,
    *,
    then: PipelineAction | None = None,
    again: float | None = None,
) -> PipelineDecision:
    pipeline = s.pipeline
    generation = pipeline.metadata.generation
    update: dict[str, Any] = {
        "synchronization_state": sync,
        "provider": pipeline.spec.provider,
        "message": message,
        "observed_generation": generation,
        "conditions": conditions.apply(pipeline.status.conditions, wishes, generation=generation, now=s.now),
    }
    if sync is SyncState.SUCCEEDED:
        update |= {"version": s.source.version, "provider_id": s.known_at_provider or ""}
    status = pipeline.status.model_copy(update=update)
    if status != pipeline.status:
        return PipelineDecision(WritePipelineStatus(status), again=again if then is None else 0)
    return PipelineDecision(then, again=again)
