"""Carries out what `reconcile.provider` decides."""

import logging

from kfp_operator.api.experiment import Experiment
from kfp_operator.api.names import Names
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.provider import Provider
from kfp_operator.api.run import Run
from kfp_operator.errors import Conflict, NotFound
from kfp_operator.operator.backends import Backends
from kfp_operator.operator.ports import Guard, Now, Objects, Recorder, Wake
from kfp_operator.operator.store import Key, Store
from kfp_operator.reconcile import provider as decisions
from kfp_operator.reconcile.provider import ProviderSituation

log = logging.getLogger(__name__)

STEPS = 20


class ProviderController:
    """Reconciles Providers."""

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
        self.held: set[Key] = set()
        """Providers to be looked at when something refers to them no longer."""

    async def reconcile(self, key: Key) -> float | None:
        """Take the Provider as far as it goes; seconds after which to look again."""
        provider = self._store.get(key)
        if not isinstance(provider, Provider):
            self.held.discard(key)
            await self._backends.close(f"{key.namespace}/{key.name}")
            self._wake_users(key)
            return None
        for _ in range(STEPS):
            decision = decisions.decide_provider(self._situation(provider))
            (self.held.add if decision.held else self.held.discard)(key)
            if decision.action is None:
                return decision.again
            self._guard()
            try:
                after = await self._act(provider, decision.action)
            except (Conflict, NotFound):
                after = await self._fresh(key)
            if after is None:
                return None
            provider = after
        log.error("Provider %s needs too many steps, it is put off; please report this", provider.metadata.full_name)
        return 60.0

    async def _act(self, provider: Provider, action: decisions.ProviderAction) -> Provider | None:
        match action:
            case decisions.AddProviderFinalizer():
                patch = {"finalizers": [*provider.metadata.finalizers, self._names.finalizer]}
                after = await self._objects.patch_metadata(provider, patch)
                self._store.put(after)
                return after
            case decisions.CloseProvider():
                await self._backends.close(provider.metadata.full_name)
                kept = [f for f in provider.metadata.finalizers if f != self._names.finalizer]
                await self._objects.patch_metadata(provider, {"finalizers": kept})
                return None
            case decisions.CheckProvider():
                before = self._backends.check_of(provider.metadata.full_name)
                check = await self._backends.check(provider)
                if not check.ok and (before is None or before.message != check.message):
                    self._recorder.warning(provider, check.reason or "NotReady", check.message)
                if check.ok and (before is None or not before.ok):
                    self._wake_users(Key.of(provider))
            case decisions.WriteProviderStatus(status):
                written = await self._objects.patch_status(provider, status)
                self._store.put(written)
                self._wake_users(Key.of(provider))
                return written
        return provider

    def _situation(self, provider: Provider) -> ProviderSituation:
        users = []
        for key in self._store.referring(Key.of(provider)):
            user = self._store.get(key)
            if not isinstance(user, Run | Pipeline | Experiment) or self._names.finalizer not in user.metadata.finalizers:
                continue
            if isinstance(user, Pipeline | Experiment) or user.status.completion_state is None:
                users.append(str(key))
        return ProviderSituation(
            provider=provider,
            check=self._backends.check_of(provider.metadata.full_name),
            users=sorted(users),
            now=self._now(),
            names=self._names,
        )

    def _wake_users(self, provider: Key) -> None:
        """Whatever refers to the provider, directly or through its Pipeline, may go on now."""
        for key in self._store.referring(provider):
            self._wake(key)
            for run in self._store.referring(key):
                self._wake(run)

    async def _fresh(self, key: Key) -> Provider | None:
        try:
            fresh = await self._objects.get(key)
        except NotFound:
            self._store.drop(key)
            return None
        self._store.put(fresh)
        return fresh if isinstance(fresh, Provider) else None
