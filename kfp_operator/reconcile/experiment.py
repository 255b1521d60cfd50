"""Decides what to do next for an Experiment. Pure.

An Experiment is made known to its provider (`EnsureExperiment`), which finds one of that name again, so nothing is lost with an answer
that does not arrive. Where the provider keeps an object for it, it carries a finalizer and is removed there first. It is made once: a
description that is edited later stays in the cluster where the provider cannot change it, and the status says so. To delete it there
and make it again would take it from under the runs that belong to it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kfp_operator.api import conditions
from kfp_operator.api.conditions import Wish
from kfp_operator.api.experiment import Experiment, ExperimentStatus
from kfp_operator.api.hashing import experiment_version
from kfp_operator.api.names import Names
from kfp_operator.api.states import SyncState
from kfp_operator.reconcile.pipeline import AddFinalizer, RemoveFinalizer, provider_blocker
from kfp_operator.reconcile.situation import ProviderView


@dataclass(frozen=True, slots=True)
class ExperimentSituation:
    """All that a decision depends on."""

    experiment: Experiment
    provider: ProviderView | None
    keeps_experiments: bool
    """Whether the provider has objects of its own for experiments."""
    known_at_provider: str
    """Provider id under which this process found or made it; "": not yet."""
    trouble: str
    """The provider's last failure, for people."""
    refused: str
    """Its reason when it is final: the provider will not take this experiment. "": it may pass."""
    now: datetime
    names: Names


@dataclass(frozen=True, slots=True)
class EnsureExperiment:
    """Make it known to the provider, or find it there."""


@dataclass(frozen=True, slots=True)
class DeleteExperiment:
    """Remove it at the provider, then let the object go."""

    provider_id: str


@dataclass(frozen=True, slots=True)
class WriteExperimentStatus:
    """Patch the status to this."""

    status: ExperimentStatus


ExperimentAction = AddFinalizer | RemoveFinalizer | EnsureExperiment | DeleteExperiment | WriteExperimentStatus


@dataclass(frozen=True, slots=True)
class ExperimentDecision:
    """The next step, if any."""

    action: ExperimentAction | None = None


def decide_experiment(s: ExperimentSituation) -> ExperimentDecision:
    """The next step for the Experiment."""
    experiment = s.experiment
    if experiment.metadata.deletion_timestamp is not None:
        return _deleted(s)
    syncing = SyncState.UPDATING if experiment.status.provider_id else SyncState.CREATING
    if blocker := provider_blocker(s.provider, experiment.spec.provider, experiment.metadata.namespace, syncing):
        return _write(s, blocker, syncing, blocker[0].message)
    if s.keeps_experiments and s.names.finalizer not in experiment.metadata.finalizers:
        return ExperimentDecision(AddFinalizer())
    if not s.known_at_provider:
        if s.refused:
            return _write(s, conditions.failed(s.refused, s.trouble), SyncState.FAILED, s.trouble, then=EnsureExperiment())
        if s.trouble:
            progress = conditions.progressing("ProviderRetrying", s.trouble, state=syncing)
            return _write(s, progress, syncing, s.trouble, then=EnsureExperiment())
        return ExperimentDecision(EnsureExperiment())
    return _synchronized(s)


def _synchronized(s: ExperimentSituation) -> ExperimentDecision:
    spec, status = s.experiment.spec, s.experiment.status
    version, message = experiment_version(spec), ""
    if s.keeps_experiments and status.version and status.provider_id == s.known_at_provider and status.version != version:
        version = status.version
        message = f"Provider {spec.provider} keeps the description that the experiment was made with: it cannot be changed there"
    return _write(s, conditions.synced(message), SyncState.SUCCEEDED, message, provider_id=s.known_at_provider, version=version)


def _deleted(s: ExperimentSituation) -> ExperimentDecision:
    experiment, names = s.experiment, s.names
    if not names.held(experiment.metadata.finalizers):
        return ExperimentDecision()
    if names.force_release in experiment.metadata.annotations or s.provider is None:
        return ExperimentDecision(RemoveFinalizer())
    provider_id = s.known_at_provider or experiment.status.provider_id
    if not provider_id and s.refused:
        return ExperimentDecision(RemoveFinalizer())
    # without an id, a request whose answer was lost may have made it: it is found by its name, or made and removed
    action = DeleteExperiment(provider_id) if provider_id else EnsureExperiment()
    message = f"waits for Provider {experiment.spec.provider} to delete it{': ' + s.trouble if s.trouble else ''}"
    return _write(s, conditions.deleting(message), SyncState.DELETING, message, then=action)


def _write(
    s: ExperimentSituation, wishes: list[Wish], sync: SyncState, message: str, *, then: ExperimentAction | None = None, **known: Any
) -> ExperimentDecision:
    """Bring the status up to date, or go on to `then` when it is; `known`: further members of the status."""
    experiment = s.experiment
    generation = experiment.metadata.generation
    status = experiment.status.model_copy(
        update={
            "synchronization_state": sync,
            "provider": experiment.spec.provider,
            "message": message,
            "observed_generation": generation,
            "conditions": conditions.apply(experiment.status.conditions, wishes, generation=generation, now=s.now),
            **known,
        }
    )
    return ExperimentDecision(WriteExperimentStatus(status) if status != experiment.status else then)
