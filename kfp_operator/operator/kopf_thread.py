"""Kopf, made to watch and do nothing else, in a thread of its own.

With its storages replaced by empty ones (Kopf otherwise copies each object to look for differences) it sees 10 000 objects in seconds.
It gets a thread and an event loop to itself because it takes over the signals of the main thread and, when it ends, cancels every
task that was begun after it. Figures and reasons stand in `docs/architecture.md`.
"""

import asyncio
import concurrent.futures
import logging
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import aiohttp

from kfp_operator.operator.credentials import Credentials


@contextmanager
def _without(*modules: str) -> Iterator[None]:
    """Make imports of these modules fail, unless they are loaded already."""
    absent = [module for module in modules if module not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: documented as "not importable"
    try:
        yield
    finally:
        for module in absent:
            del sys.modules[module]


with _without("kubernetes", "kubernetes_asyncio", "pykube"):  # Kopf only wants to recognize their objects: 55 MB and a second
    import kopf

__all__ = ["KopfThread", "kopf", "kopf_settings"]

log = logging.getLogger(__name__)

ENDING = 15.0
"""Seconds that Kopf gets to end, before it is left to itself."""
CLOSING = 0.25
"""Seconds that interrupted watches get to close their connections, before the loop that would do it is closed (aiohttp's advice)."""
LOGIN_PAUSE = 5.0
"""Seconds before refused credentials are tried again."""


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keeps no copy of objects: changes are not looked for."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Store nothing."""


class _NoProgress(kopf.ProgressStorage):
    """Keeps no progress of handlers on objects: event handlers have none."""

    def fetch(self, *, key: Any, body: kopf.Body) -> None:
        return None

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Store nothing."""

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Remove nothing."""

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        """Touch nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


class _Backoffs:
    """Delays between attempts, for ever: an outage of the API server must not end Kopf."""

    def __iter__(self) -> Iterator[float]:
        delay = 1.0
        while True:
            yield delay * random.uniform(0.8, 1.2)  # noqa: S311 -- spreads load
            delay = min(delay * 2, 30.0)


def kopf_settings() -> kopf.OperatorSettings:
    """Settings under which Kopf watches and does nothing else."""
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    settings.persistence.consistency_timeout = 0
    settings.watching.chunk_size = 500
    settings.queueing.idle_timeout = 0.1  # one task per object, else for 5 s after each event
    settings.queueing.worker_limit = None  # the work queue throttles
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = _Backoffs()
    settings.process.ultimate_exiting_timeout = None
    return settings


class KopfThread:
    """Runs Kopf in a thread and event loop of its own. `ended` is called there, with what it ended by.

    When one watch fails, Kopf closes its session under the other ones, which may then neither go on nor be cancelled, and it waits for
    them without end (seen with 1.45.2). Its clean-up comes before: there the other watches are cancelled while they still can be.
    """

    def __init__(
        self,
        registry: kopf.OperatorRegistry,
        credentials: Credentials,
        *,
        namespaces: Sequence[str],
        tracing: aiohttp.TraceConfig,
        ended: Callable[[BaseException | None], None],
    ) -> None:
        kopf.on.login(registry=registry)(self._log_in)
        kopf.on.cleanup(registry=registry)(self._cancel_watches)
        self._registry = registry
        self._credentials = credentials
        self._namespaces = namespaces
        self._tracing = tracing
        self._sessions: list[aiohttp.ClientSession] = []
        self._ended = ended
        self._stop: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="kopf", daemon=True)
        self._cleaning = asyncio.Event()
        self._ours: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; `ended` follows. Fine when it has ended."""
        if not self._stop.done():
            self._stop.set_result(None)

    async def _run(self) -> None:
        # Kopf ends its tasks without asking what became of them; what it ended by is told by `ended`.
        asyncio.get_running_loop().set_exception_handler(lambda _, context: log.debug("in Kopf's loop: %s", context["message"]))
        operator = asyncio.create_task(
            kopf.operator(
                registry=self._registry,
                settings=kopf_settings(),
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                stop_flag=self._stop,
            )
        )
        cleaning = asyncio.create_task(self._cleaning.wait())
        self._ours = asyncio.all_tasks()
        await asyncio.wait((operator, cleaning), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait((operator,), timeout=ENDING)
        cleaning.cancel()
        if operator.done():
            (result,) = await asyncio.gather(operator, return_exceptions=True)
            for session in self._sessions:
                await session.close()
            await asyncio.sleep(CLOSING)
            self._ended(result)
        else:
            self._ended(TimeoutError(f"Kopf has failed and does not end within {ENDING:g} s; its log says why"))

    async def _log_in(self, **_: Any) -> kopf.AiohttpSession:
        """A session that authenticates itself. Kopf asks for another one when the API server has refused the last."""
        if self._sessions:
            await asyncio.sleep(LOGIN_PAUSE)
        session = self._credentials.session(limit=0, tracing=(self._tracing,))
        self._sessions.append(session)
        endpoint = self._credentials.endpoint
        return kopf.AiohttpSession(aiohttp_session=session, server=endpoint.server, default_namespace=endpoint.namespace)

    async def _cancel_watches(self, **_: Any) -> None:
        """End what Kopf left behind: first the watches, which would take it for a pause if the tasks that pause them ended too."""
        self._cleaning.set()
        kept = self._ours | {asyncio.current_task()}
        left = [task for task in asyncio.all_tasks() if task not in kept]
        watches = [task for task in left if task.get_name().startswith("watcher for ")]
        for some in (watches, left):
            for task in some:
                task.cancel()
            if some:
                await asyncio.wait(some, timeout=ENDING / 3)
