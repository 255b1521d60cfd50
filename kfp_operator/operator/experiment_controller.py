"""Carries out what `reconcile.experiment` decides."""

import logging
from dataclasses import dataclass, field

from kfp_operator.api import conditions
from kfp_operator.api.experiment import Experiment
from kfp_operator.api.hashing import experiment_version
from kfp_operator.api.names import Names
from kfp_operator.api.provider import Provider
from kfp_operator.api.states import SyncState
from kfp_operator.errors import Conflict, InvalidSpec, NotFound, Permanent, ProviderError, Retryable
from kfp_operator.operator.backends import Backend, Backends
from kfp_operator.operator.backoff import Trouble
from kfp_operator.operator.ports import Guard, Now, Objects, Recorder, Wake
from kfp_operator.operator.store import Key, Store
from kfp_operator.providers.protocol import ExperimentDescription
from kfp_operator.reconcile import experiment as decisions
from kfp_operator.reconcile.experiment import ExperimentSituation
from kfp_operator.reconcile.pipeline import AddFinalizer, RemoveFinalizer

log = logging.getLogger(__name__)

STEPS = 20
MAX_BACKOFF = 60.0
UNCHECKED_AGAIN = 5.0


@dataclass(slots=True)
class Desk:
    """What this process knows of one Experiment."""

    uid: str
    provider_id: str = ""
    """Under which the provider was seen to have it."""
    provider_generation: int = 0
    tried: tuple[str, int, bool] = ("", 0, False)
    """What trouble is about: version, generation of the provider, deletion."""
    trouble: Trouble = field(default_factory=Trouble)


class ExperimentController:
    """Reconciles Experiments."""

    def __init__(
        self, *, store: Store, objects: Objects, backends: Backends, recorder: Recorder, guard: Guard, now: Now, names: Names, wake: Wake
    ) -> None:
        self._store = store
        self._objects = objects
        self._backends = backends
        self._recorder = recorder
        self._guard = guard
        self._now = now
        self._names = names
        self._wake = wake
        self._desks: dict[Key, Desk] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Take the Experiment as far as it goes; seconds after which to look again."""
        experiment = self._store.get(key)
        if not isinstance(experiment, Experiment):
            self._desks.pop(key, None)
            return None
        desk = self._desks.get(key)
        if desk is None or desk.uid != experiment.metadata.uid:
            desk = self._desks[key] = Desk(experiment.metadata.uid)
        self._forget_trouble(desk, experiment)
        for _ in range(STEPS):
            wanted = experiment.spec.provider
            if self._store.get(Key.parse("Provider", wanted)) and self._backends.check_of(wanted) is None:
                return UNCHECKED_AGAIN  # the Provider's first check wakes it
            action = decisions.decide_experiment(self._situation(experiment, desk)).action
            if action is None:
                return None
            remote = isinstance(action, decisions.EnsureExperiment | decisions.DeleteExperiment)
            if remote and (left := desk.trouble.left(self._now())) > 0:
                return left
            self._guard()
            try:
                after = await self._act(experiment, desk, action)
            except (Conflict, NotFound):
                after = await self._fresh(key)
            except (ProviderError, InvalidSpec) as error:
                told = Permanent(str(error), reason=error.reason) if isinstance(error, InvalidSpec) else error
                desk.trouble = desk.trouble.after(told, self._now(), most=MAX_BACKOFF)
                continue
            if after is None:
                return None
            if after.metadata.uid != desk.uid:
                return 0
            experiment = after
        log.error("Experiment %s needs too many steps, it is put off; please report this", experiment.metadata.full_name)
        return MAX_BACKOFF

    async def _act(self, experiment: Experiment, desk: Desk, action: decisions.ExperimentAction) -> Experiment | None:
        meta, names = experiment.metadata, self._names
        match action:
            case AddFinalizer():
                finalizers = [*names.released(meta.finalizers), names.finalizer]
                return self._stored(await self._objects.patch_metadata(experiment, {"finalizers": finalizers}))
            case decisions.EnsureExperiment():
                backend = self._backend(experiment)
                description = ExperimentDescription(meta.namespace, meta.name, experiment.spec.description)
                desk.provider_id = await backend.provider.ensure_experiment(description)
                desk.provider_generation = backend.generation
            case decisions.DeleteExperiment(provider_id):
                await self._backend(experiment).provider.delete_experiment(provider_id)
                await self._release(experiment)
                return None
            case RemoveFinalizer():
                await self._release(experiment)
                return None
            case decisions.WriteExperimentStatus(status):
                written = self._stored(await self._objects.patch_status(experiment, status))
                self._tell(experiment, written)
                for run in self._store.referring(Key.of(written)):
                    self._wake(run)
                return written
        return experiment

    async def _release(self, experiment: Experiment) -> None:
        await self._objects.patch_metadata(experiment, {"finalizers": self._names.released(experiment.metadata.finalizers)})

    def _tell(self, before: Experiment, written: Experiment) -> None:
        """As an Event, what people wait for and what they should know."""
        was, status = before.status, written.status
        if status.synchronization_state is SyncState.SUCCEEDED and status.provider_id != was.provider_id:
            self._recorder.normal(written, "Synchronized", f"exists at Provider {status.provider} as {status.provider_id}")
        if not status.message or status.message == was.message:
            return
        if status.synchronization_state is SyncState.SUCCEEDED:
            self._recorder.warning(written, "DescriptionKept", status.message)
        elif ready := conditions.find(status.conditions, "Ready"):
            self._recorder.warning(written, ready.reason, status.message)

    def _backend(self, experiment: Experiment) -> Backend:
        backend = self._backends.get(experiment.spec.provider)
        if backend is None:
            raise Retryable(f"Provider {experiment.spec.provider} is not open", reason="ProviderNotReady")
        return backend

    def _situation(self, experiment: Experiment, desk: Desk) -> ExperimentSituation:
        resource = self._store.get(Key.parse("Provider", experiment.spec.provider))
        backend = self._backends.get(experiment.spec.provider)
        seen = backend is not None and desk.provider_generation == backend.generation
        return ExperimentSituation(
            experiment=experiment,
            provider=self._backends.view(resource if isinstance(resource, Provider) else None),
            keeps_experiments=backend is not None and backend.provider.keeps_experiments,
            known_at_provider=desk.provider_id if seen else "",
            trouble=desk.trouble.message,
            refused=desk.trouble.refused,
            now=self._now(),
            names=self._names,
        )

    def _stored(self, experiment: Experiment) -> Experiment:
        self._store.put(experiment)
        return experiment

    async def _fresh(self, key: Key) -> Experiment | None:
        try:
            fresh = await self._objects.get(key)
        except NotFound:
            self._store.drop(key)
            return None
        self._store.put(fresh)
        return fresh if isinstance(fresh, Experiment) else None

    def _forget_trouble(self, desk: Desk, experiment: Experiment) -> None:
        """What was edited, at either side, is tried at once."""
        backend = self._backends.get(experiment.spec.provider)
        generation = backend.generation if backend is not None else 0
        tried = (experiment_version(experiment.spec), generation, experiment.metadata.deletion_timestamp is not None)
        if desk.tried != tried:
            desk.tried, desk.trouble = tried, Trouble()
