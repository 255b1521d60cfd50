"""The provider instances of this process: opened from Provider resources, watched, closed.

`Backends` keeps for every provider the latest update of each run it reported, and wakes the Run it belongs to. A watch that fails
is begun again with a backoff; nothing is lost, because a watch begins with the present state of all runs. One that keeps failing makes
the provider unusable: what it cannot watch, it had better not start.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from kfp_operator.api.provider import Provider as ProviderResource
from kfp_operator.errors import InvalidSpec, Permanent, ProviderError, Retryable
from kfp_operator.operator.backoff import backoff
from kfp_operator.operator.ports import Now
from kfp_operator.providers.protocol import Provider, RunUpdate
from kfp_operator.reconcile.provider import Check
from kfp_operator.reconcile.situation import ProviderView

log = logging.getLogger(__name__)

Open = Callable[[ProviderResource], Provider]
"""Opens an instance for a resource; InvalidSpec when its spec cannot be used."""
Observe = Callable[[str, Provider], Coroutine[Any, Any, None]]
"""Tells of runs that others start at a provider, until cancelled."""
MAX_BACKOFF = 60.0
CHECK_TIMEOUT = 30.0
WATCH_FAILURES = 3
"""A watch that fails so often in a row is told as the provider's trouble."""
WATCH_SETTLED = timedelta(seconds=10)
"""A watch that lasts so long is in order, even if there is nothing to tell."""


@dataclass(slots=True)
class Backend:
    """One open provider instance."""

    generation: int
    provider: Provider
    watcher: asyncio.Task[None] | None = None
    observing: asyncio.Task[None] | None = None
    watching_since: datetime | None = None
    watch_failures: int = 0
    watch_trouble: str = ""
    latest: dict[str, RunUpdate] = field(default_factory=dict)
    """Last update by submission id, of runs that have not settled."""


class Backends:
    """All open provider instances, by (namespace, name) of their resource."""

    def __init__(
        self,
        open_: Open,
        *,
        now: Now,
        on_update: Callable[[str], None],
        on_trouble: Callable[[str], None],
        observe: Observe | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`on_update` is called with a submission id, `on_trouble` with the name of a Provider whose last check no longer holds.

        `observe` looks after the runs of others beside the watch; `pause` waits so many seconds before a watch begins again.
        """
        self._open = open_
        self._now = now
        self._on_update = on_update
        self._on_trouble = on_trouble
        self._observe = observe
        self._pause = pause
        self._backends: dict[str, Backend] = {}
        self._checks: dict[str, Check] = {}

    def get(self, name: str) -> Backend | None:
        """The open instance of the Provider "ns/name"."""
        return self._backends.get(name)

    def latest(self, submission: str) -> RunUpdate | None:
        """The last report of a submission, of whatever Provider."""
        return next((update for b in self._backends.values() if (update := b.latest.get(submission)) is not None), None)

    def check_of(self, name: str) -> Check | None:
        """The last check of the Provider "ns/name"."""
        return self._checks.get(name)

    def view(self, resource: ProviderResource | None) -> ProviderView | None:
        """Whether this process can use the provider, for decisions."""
        if resource is None:
            return None
        check = self._checks.get(resource.metadata.full_name)
        backend = self._backends.get(resource.metadata.full_name)
        usable = backend is not None and check is not None and check.ok
        message = check.message if check is not None else "it has not been checked yet"
        return ProviderView(resource, usable, message, backend.provider.backend if backend is not None else "")

    async def check(self, resource: ProviderResource) -> Check:
        """Open the instance of the present spec if there is none, ask it, remember and return the result."""
        name, generation = resource.metadata.full_name, resource.metadata.generation
        backend = self._backends.get(name)
        try:
            if backend is None or backend.generation != generation:
                await self.close(name)
                backend = Backend(generation, self._open(resource))
                self._backends[name] = backend
            async with asyncio.timeout(CHECK_TIMEOUT):
                await backend.provider.check()
        except InvalidSpec as error:
            result = Check(generation, ok=False, time=self._now(), reason=error.reason, message=str(error), permanent=True)
        except Permanent as error:
            result = Check(generation, ok=False, time=self._now(), reason=error.reason, message=str(error))
        except (ProviderError, TimeoutError, OSError) as error:
            reason = error.reason if isinstance(error, Retryable) else "ProviderUnavailable"
            message = str(error) or f"the backend did not answer within {CHECK_TIMEOUT:.0f} s"
            result = Check(generation, ok=False, time=self._now(), reason=reason, message=message)
        except Exception as error:
            log.exception("Provider %s cannot be opened, with an error that its type should not raise", name)
            message = f"type {resource.spec.type} failed: {type(error).__name__}: {error}"
            result = Check(generation, ok=False, time=self._now(), reason="ProviderFailed", message=message)
        else:
            if backend.watcher is None:
                backend.watcher = asyncio.create_task(self._watch(name, backend), name=f"watch {name}")
                if self._observe is not None:
                    backend.observing = asyncio.create_task(self._observe(name, backend.provider), name=f"observe {name}")
            result = Check(generation, ok=True, time=self._now()) if self._watched(backend) else self._unwatched(backend)
        self._checks[name] = result
        return result

    def settle(self, name: str, submission: str) -> None:
        """Forget a run whose end is in its status."""
        backend = self._backends.get(name)
        if backend is not None:
            backend.latest.pop(submission, None)

    async def close(self, name: str) -> None:
        """Close the instance of the Provider "ns/name"; its runs go on."""
        backend = self._backends.pop(name, None)
        self._checks.pop(name, None)
        if backend is None:
            return
        for task in (backend.watcher, backend.observing):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        try:
            await backend.provider.close()
        except ProviderError as error:
            log.warning("Provider %s did not close cleanly: %s", name, error)

    async def close_all(self) -> None:
        """Close every instance."""
        for name in list(self._backends):
            await self.close(name)

    def _watched(self, backend: Backend) -> bool:
        """Whether the watch of the provider is in order: it has not failed often, or has lasted since."""
        lasts = backend.watching_since is not None and self._now() - backend.watching_since >= WATCH_SETTLED
        return lasts or backend.watch_failures < WATCH_FAILURES

    def _unwatched(self, backend: Backend) -> Check:
        message = f"its runs cannot be watched: {backend.watch_trouble}"
        return Check(backend.generation, ok=False, time=self._now(), reason="WatchFailed", message=message)

    async def _watch(self, name: str, backend: Backend) -> None:
        while True:
            began = backend.watching_since = self._now()
            try:
                async with aclosing(backend.provider.watch_runs()) as updates:  # type: ignore[type-var]
                    async for update in updates:
                        backend.latest[update.submission_id] = update
                        self._on_update(update.submission_id)
                backend.watch_trouble = "the watch ended"
                log.debug("the watch of Provider %s ended, it begins again", name)
            except (ProviderError, OSError, TimeoutError) as error:
                backend.watch_trouble = str(error) or type(error).__name__
                log.warning("Provider %s cannot be watched: %s", name, error)
            except Exception as error:
                backend.watch_trouble = f"{type(error).__name__}: {error}"
                log.exception("Provider %s failed in its watch with an error that it should not raise", name)
            backend.watching_since = None
            backend.watch_failures = 1 if self._now() - began >= WATCH_SETTLED else backend.watch_failures + 1
            if backend.watch_failures == WATCH_FAILURES:
                self._checks[name] = self._unwatched(backend)
                self._on_trouble(name)
            await self._pause(backoff(backend.watch_failures, most=MAX_BACKOFF))
