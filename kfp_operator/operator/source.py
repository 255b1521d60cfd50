"""Keeps the store equal to the API server: Kopf's `@kopf.on.event` for each of our kinds, and nothing else of Kopf.

Event handlers see every event and write nothing to the cluster. They run in Kopf's thread (see `kopf_thread`), parse, and hand over in
batches. When Kopf ends by itself, as it does on errors in a watch that it does not know, it is begun again; the store makes that
cheap. Kopf does not say when it has seen everything, so it is told from outside: every watch was opened, which follows its list, and as
many objects came as there were at the start; if fewer come, some were deleted meanwhile, and the names of all are compared.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from pydantic import ValidationError

from kfp_operator.api.names import Names
from kfp_operator.errors import ClusterError, ClusterUnavailable, NotFound
from kfp_operator.operator.client import Cluster
from kfp_operator.operator.credentials import Credentials
from kfp_operator.operator.kopf_thread import KopfThread, kopf
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.resources import Resource
from kfp_operator.operator.store import Key, Store, Stored, read
from kfp_operator.operator.sweeper import present

log = logging.getLogger(__name__)

BATCH = 500
"""Events taken over at once, before the event loop may do other things."""
LOOK_AGAIN = 2.0
"""Seconds without an event after which what is still expected is looked at again."""
STARTUP = 60.0
"""Seconds without progress after which a watch that was not opened counts as failed."""
LONG_LIFE = 60.0
SHORT_LIVES = 5
"""How often in a row Kopf may end within LONG_LIFE seconds."""
STOPPING = 15.0
PROBLEMS = 5
"""How many fields are named of an object that cannot be read."""


@dataclass(frozen=True, slots=True)
class _Seen:
    stored: Stored


@dataclass(frozen=True, slots=True)
class _Deleted:
    key: Key
    uid: str


@dataclass(frozen=True, slots=True)
class _Invalid:
    key: Key
    uid: str
    why: str


@dataclass(frozen=True, slots=True)
class _Opened:
    """A watch was opened: everything of the list before it, if there was one, has been handed to the handlers."""

    path: str
    listed: bool


@dataclass(frozen=True, slots=True)
class _Answered:
    """Kopf's last request for a list or watch failed, or (`failure` is "") did not."""

    path: str
    failure: str


_Message = _Seen | _Deleted | _Invalid | _Opened | _Answered


class Source:
    """Keeps a store equal to the API server.

    `changed` is called with the key of each object that is new or newer than what the store had (so not for the echo of a write whose
    answer was put into the store), `gone` with key and uid of each that was deleted, `relisted` when a watch began anew, so that deletions
    may have been missed, and `invalid` with key, uid and reason for an object that its model cannot parse. All on the event loop of `run`.
    `pause`: seconds until watches that ended begin again, doubled each time in a row.
    """

    def __init__(
        self,
        credentials: Credentials,
        cluster: Cluster,
        store: Store,
        *,
        names: Names,
        kinds: Sequence[Resource],
        namespaces: Sequence[str] = (),
        changed: Callable[[Key], None],
        gone: Callable[[Key, str], None],
        relisted: Callable[[], None],
        invalid: Callable[[Key, str, str], None],
        metrics: Metrics,
        pause: float = 1.0,
    ) -> None:
        self._pause = pause
        self._credentials = credentials
        self._cluster = cluster
        self._store = store
        self._names = names
        self._kinds = tuple(kinds)
        self._namespaces = tuple(namespaces)
        self._changed = changed
        self._gone = gone
        self._relisted = relisted
        self._invalid = invalid
        self._metrics = metrics
        prefix = urlsplit(credentials.endpoint.server).path.rstrip("/")  # of a server behind a gateway
        self._paths = {prefix + kind.path(namespace) for kind in kinds for namespace in namespaces or ("",)}
        self._inbox: deque[_Message] = deque()
        self._scheduled = threading.Lock()
        self._expected = 0
        self._seen: set[Key] = set()
        self._opened: set[str] = set()
        self._ever_opened: set[str] = set()
        self._progress = 0.0
        self._unsynced = "the API server was not asked yet"
        self._failing: dict[str, str] = {}
        self.synced = asyncio.Event()
        """Set when every object that existed at the start was seen and every watch is open; never unset."""

    @property
    def trouble(self) -> str:
        """Why the objects are not known as they are now, for readiness; "" when they are."""
        return self._unsynced or next(iter(self._failing.values()), "")

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop` is set.

        Raises ClusterUnavailable when the watches cannot be kept up. An API server that is away or lacks our CRDs is waited for.
        """
        short_lives = 0
        while not stop.is_set():
            if not await self._wait_until_served(stop):
                return
            began = time.monotonic()
            error = await self._watch(stop)
            if stop.is_set():
                return
            short_lives = 0 if time.monotonic() - began > LONG_LIFE else short_lives + 1
            self._unsynced = f"the watches ended: {error!r}" if error is not None else "the watches ended"
            if short_lives >= SHORT_LIVES:
                raise ClusterUnavailable(self._unsynced) from error
            log.warning("%s; they begin again", self._unsynced, exc_info=error)
            await _sleep_unless(stop, self._pause * 2.0**short_lives)

    async def _wait_until_served(self, stop: asyncio.Event) -> bool:
        """Wait until all kinds can be listed, and note what exists. False: stopped before."""
        delay = 0.5
        while not stop.is_set():
            try:
                for kind in self._kinds:
                    await self._check_discovery(kind)
                counts = [await self._cluster.count(kind, each) for kind in self._kinds for each in self._namespaces or ("",)]
            except ClusterError as error:
                if self._unsynced != str(error):
                    log.warning("Our resources cannot be watched yet: %s", error)
                self._unsynced = str(error)
            else:
                self._expected = sum(counts)
                self._unsynced = f"{self._expected} objects are being read"
                return True
            await _sleep_unless(stop, delay)
            delay = min(delay * 2, 10.0)
        return False

    async def _check_discovery(self, kind: Resource) -> None:
        """Kopf asks discovery only once, and leaves out for good what is not there then."""
        if not await self._cluster.serves(kind):
            raise NotFound(f"{kind.title} {kind.version} is not installed: kubectl apply -f crds/", status=404)

    async def _watch(self, stop: asyncio.Event) -> BaseException | None:
        """Run Kopf until it ends or is stopped; return what it ended by."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = loop.create_future()
        self._opened.clear()
        self._seen.clear()
        self._failing.clear()
        self._progress = loop.time()
        thread = KopfThread(
            self._registry(loop),
            self._credentials,
            namespaces=self._namespaces,
            tracing=self._tracing(loop),
            ended=lambda error: _call(loop, _settle, ended, error),
        )
        thread.start()
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not ended.done() and not stopping.done():
                await asyncio.wait((ended, stopping), timeout=LOOK_AGAIN, return_when=asyncio.FIRST_COMPLETED)
                quiet = loop.time() - self._progress
                if quiet < LOOK_AGAIN or ended.done() or stopping.done() or self._complete():
                    continue
                await self._look_again()
                if quiet > STARTUP and not self._complete():
                    return ClusterUnavailable(self._unsynced)
        finally:
            stopping.cancel()
            thread.stop()
            await asyncio.wait((ended,), timeout=STOPPING)
        return ended.result() if ended.done() else None

    async def _look_again(self) -> None:
        """Nothing comes any more: say what is missing, if something is."""
        try:
            exists = await present(self._cluster, self._kinds, self._namespaces)
        except ClusterError as error:
            self._unsynced = str(error)
            self._progress = asyncio.get_running_loop().time()
            return
        missing = len(exists.keys() - self._seen)
        self._expected = len(self._seen) + missing
        unopened = ", ".join(sorted(self._paths - self._opened))
        self._unsynced = f"{missing} objects are still to be read" if missing else f"not watched yet: {unopened}"

    def _registry(self, loop: asyncio.AbstractEventLoop) -> kopf.OperatorRegistry:
        """Event handlers for our kinds: nothing that writes to objects."""
        registry = kopf.OperatorRegistry()
        for kind in self._kinds:
            kopf.on.event(group=kind.group, version=kind.version, plural=kind.plural, registry=registry)(self._handler(loop, kind))
        return registry

    def _handler(self, loop: asyncio.AbstractEventLoop, kind: Resource) -> Callable[..., Any]:
        async def handle(event: Any, **_: Any) -> None:
            body, type_ = event["object"], event["type"]
            metadata = body["metadata"]
            key = Key(kind.kind, metadata["namespace"], metadata["name"])
            self._metrics.watch_events.labels(kind=kind.kind, type=(type_ or "LISTED").lower()).inc()
            if type_ == "DELETED":
                self._post(loop, _Deleted(key, metadata["uid"]))
                return
            try:
                stored = read(kind.kind, dict(body), self._names)
            except ValidationError as error:
                self._metrics.watch_events.labels(kind=kind.kind, type="invalid").inc()
                self._post(loop, _Invalid(key, metadata["uid"], _problems(error)))
                return
            self._post(loop, _Seen(stored))

        return handle

    def _tracing(self, loop: asyncio.AbstractEventLoop) -> aiohttp.TraceConfig:
        """Tells when Kopf opens a watch, which it does after it has handed out the list before it, and what Kopf only logs: failures."""
        trace = aiohttp.TraceConfig()
        listed: set[str] = set()

        async def begun(_session: Any, _context: Any, request: aiohttp.TraceRequestStartParams) -> None:
            path = request.url.path
            if path not in self._paths:
                return
            if request.url.query.get("watch") == "true":
                self._post(loop, _Opened(path, path in listed))
                listed.discard(path)
            else:
                listed.add(path)

        async def ended(_session: Any, _context: Any, request: aiohttp.TraceRequestEndParams) -> None:
            path, status = request.url.path, request.response.status
            if path in self._paths:
                failure = f"the API server answers {status} {request.response.reason} to {path}" if status >= 400 else ""
                self._post(loop, _Answered(path, failure))

        async def failed(_session: Any, _context: Any, request: aiohttp.TraceRequestExceptionParams) -> None:
            if request.url.path in self._paths and not isinstance(request.exception, asyncio.CancelledError):
                self._post(loop, _Answered(request.url.path, f"{request.url.path}: {request.exception or 'no answer'}"))

        trace.on_request_start.append(begun)
        trace.on_request_end.append(ended)
        trace.on_request_exception.append(failed)
        return trace

    def _post(self, loop: asyncio.AbstractEventLoop, message: _Message) -> None:
        """Hand a message to the event loop of `run`, from Kopf's thread."""
        self._inbox.append(message)
        if self._scheduled.acquire(blocking=False):
            _call(loop, self._take)

    def _take(self) -> None:
        """Apply what has arrived, on the event loop of `run`."""
        self._scheduled.release()
        try:
            for _ in range(min(BATCH, len(self._inbox))):
                self._apply(self._inbox.popleft())
        finally:
            if self._inbox and self._scheduled.acquire(blocking=False):
                asyncio.get_running_loop().call_soon(self._take)

    def _apply(self, message: _Message) -> None:
        self._progress = asyncio.get_running_loop().time()
        match message:
            case _Seen(stored):
                key = Key.of(stored)
                self._saw(key)
                if self._store.put(stored):
                    self._changed(key)
            case _Deleted(key, uid):
                self._saw(key)
                if self._store.drop(key, uid):
                    self._gone(key, uid)
            case _Invalid(key, uid, why):
                self._saw(key)
                self._invalid(key, uid, why)
            case _Opened(path, listed):
                self._opened.add(path)
                if listed and path in self._ever_opened:
                    self._relisted()
                self._ever_opened.add(path)
            case _Answered(path, failure):
                self._failing.pop(path, None)
                if failure:
                    self._failing[path] = failure
        if self._unsynced:
            self._complete()

    def _saw(self, key: Key) -> None:
        if self._unsynced:
            self._seen.add(key)

    def _complete(self) -> bool:
        """Whether everything has been seen; notes it when it has."""
        if not self._unsynced:
            return True
        if len(self._seen) < self._expected or self._opened != self._paths:
            return False
        self._unsynced = ""
        self._seen.clear()
        self.synced.set()
        return True


def _call(loop: asyncio.AbstractEventLoop, what: Callable[..., object], *args: object) -> None:
    """Have it called on a loop from another thread; a loop that is closed needs nothing any more."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(what, *args)


def _settle(ended: "asyncio.Future[BaseException | None]", error: BaseException | None) -> None:
    if not ended.done():
        ended.set_result(error)


async def _sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


def _problems(error: ValidationError) -> str:
    """What is wrong, field by field; not the values, which may be long or secret."""
    errors = error.errors(include_input=False, include_url=False)
    found = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in errors]
    return "; ".join(found[:PROBLEMS]) + (f"; and {len(found) - PROBLEMS} more" if len(found) > PROBLEMS else "")
