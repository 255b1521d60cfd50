"""Kubernetes Events: what ``kubectl describe`` shows below an object.

They are told, not relied upon: recording never waits and never fails, a writer behind a bounded queue does the rest. As in client-go,
an Event that repeats within ten minutes becomes a higher count on the one that is there, and an object that says too much is muted
(25 at once, then one per five minutes); all together are held to ten a second, because etcd has better things to store. What could not
be written, in a namespace that is being deleted or while the API server is away, is only counted.
"""

import asyncio
import hashlib
import logging
import socket
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from kfp_operator.api.meta import Resource
from kfp_operator.api.names import Names
from kfp_operator.errors import ClusterError, NotFound
from kfp_operator.operator import resources
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.ports import Now, utc_now

log = logging.getLogger(__name__)

COMPONENT = "kfp-operator"
QUEUED = 1000
WINDOW = 600.0
"""Seconds after which an Event that repeats is a new one."""
BURST, REFILL = 25, 1 / 300
"""Events per object at once, and per second in the long run: those of client-go's spam filter."""
GLOBAL_RATE = 10.0
DRAIN = 2.0
"""Seconds that the writer gets at the end."""
_REMEMBERED = 4096
_MESSAGE = 1024  # bytes; the API's bound for the note of an Event
_ROUNDING = 1e-6  # of a token
_NAME = 200  # of the object's name, of 253 characters that the Event's may have

Type = Literal["Normal", "Warning"]
K = TypeVar("K")
V = TypeVar("V")


class EventsApi(Protocol):
    """What is needed of the API server; `client.Cluster` is one."""

    async def create(self, resource: resources.Resource, body: Mapping[str, Any], namespace: str = "") -> dict[str, Any]:
        """Create it; ClusterError."""

    async def patch(self, resource: resources.Resource, name: str, body: Mapping[str, Any], namespace: str = "") -> dict[str, Any]:
        """Merge into it; NotFound, ClusterError."""


class _Sameness(NamedTuple):
    """What makes two Events the same."""

    uid: str
    type: Type
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class _Note:
    """Something to be told."""

    what: _Sameness
    involved: Mapping[str, str]
    time: datetime


@dataclass(slots=True)
class _Written:
    """An Event that is at the API server."""

    name: str
    count: int
    at: float


@dataclass(slots=True)
class _Bucket:
    """A token bucket: `size` at once, `rate` a second."""

    size: float
    rate: float
    at: float
    tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self.size

    def wait(self, now: float) -> float:
        """Seconds until there is a token."""
        self.tokens = min(self.size, self.tokens + (now - self.at) * self.rate)
        self.at = now
        missing = 1 - self.tokens
        return missing / self.rate if missing > _ROUNDING else 0.0

    def take(self) -> None:
        """Take a token, perhaps one that comes only after `wait` seconds."""
        self.tokens -= 1


class _Recent(Generic[K, V]):
    """A mapping that forgets what was not asked for the longest."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: K, value: V) -> None:
        self._kept[key] = value
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)


class EventRecorder:
    """Writes Kubernetes Events about our objects while `running`. Implements `ports.Recorder`; use it on one event loop."""

    def __init__(
        self, cluster: EventsApi, names: Names, metrics: Metrics, *, now: Now = utc_now, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the API server, our names and where to count.

        `now` gives the times in Events, `clock` the seconds for limits; both are replaced in tests.
        """
        self._cluster = cluster
        self._names = names
        self._metrics = metrics
        self._now = now
        self._clock = clock
        self._host = socket.gethostname()
        self._queue: asyncio.Queue[_Note] = asyncio.Queue(QUEUED)
        self._written: _Recent[_Sameness, _Written] = _Recent(_REMEMBERED)
        self._spoken: _Recent[str, _Bucket] = _Recent(_REMEMBERED)
        self._all = _Bucket(GLOBAL_RATE, GLOBAL_RATE, clock())

    def normal(self, resource: Resource, reason: str, message: str) -> None:
        """Something happened as it should."""
        self._record(resource, "Normal", reason, message)

    def warning(self, resource: Resource, reason: str, message: str) -> None:
        """Something needs attention."""
        self._record(resource, "Warning", reason, message)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write what is recorded; at the end, for at most `DRAIN` seconds more."""
        writer = asyncio.create_task(self._write_all(), name="kube-events")
        try:
            yield
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN):
                    await self._queue.join()
        finally:
            writer.cancel()
            await asyncio.wait({writer})
            while not self._queue.empty():
                self._queue.get_nowait()
                self._queue.task_done()
                self._count("dropped")

    def _record(self, resource: Resource, kind: Type, reason: str, message: str) -> None:
        metadata = resource.metadata
        bucket = self._spoken.get(metadata.uid)
        if bucket is None:
            bucket = _Bucket(BURST, REFILL, self._clock())
            self._spoken.put(metadata.uid, bucket)
        if bucket.wait(self._clock()):
            self._count("dropped")
            return
        bucket.take()
        involved = {
            "apiVersion": self._names.api_version,
            "kind": type(resource).__name__,
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
        }
        try:
            self._queue.put_nowait(_Note(_Sameness(metadata.uid, kind, reason, _cut(message)), involved, self._now()))
        except asyncio.QueueFull:
            self._count("dropped")

    async def _write_all(self) -> None:
        while True:
            note = await self._queue.get()
            result = "failed"
            try:
                wait = self._all.wait(self._clock())
                self._all.take()
                await asyncio.sleep(wait)
                await self._write(note)
                result = "written"
            except ClusterError as error:
                log.debug("an Event about %s was not written: %s", note.involved["name"], error)
            except Exception:  # a defect here must not end the operator, nor the Events that follow
                log.exception("an Event about %s was not written; please report this", note.involved["name"])
            finally:
                self._count(result)
                self._queue.task_done()

    async def _write(self, note: _Note) -> None:
        before, namespace = self._written.get(note.what), note.involved["namespace"]
        if before is not None and self._clock() - before.at <= WINDOW:
            change = {"count": before.count + 1, "lastTimestamp": _timestamp(note.time), "message": note.what.message}
            try:
                await self._cluster.patch(resources.EVENTS, before.name, change, namespace)
            except NotFound:  # somebody deleted it
                pass
            else:
                before.count, before.at = before.count + 1, self._clock()
                return
        name = _name(note)
        await self._cluster.create(resources.EVENTS, self._event(note, name), namespace)
        self._written.put(note.what, _Written(name, 1, self._clock()))

    def _event(self, note: _Note, name: str) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "namespace": note.involved["namespace"]},
            "involvedObject": dict(note.involved),
            "type": note.what.type,
            "reason": note.what.reason,
            "message": note.what.message,
            "count": 1,
            "firstTimestamp": _timestamp(note.time),
            "lastTimestamp": _timestamp(note.time),
            "source": {"component": COMPONENT, "host": self._host},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._host,
        }

    def _count(self, result: str) -> None:
        self._metrics.kube_events.labels(result=result).inc()


def _name(note: _Note) -> str:
    """A name for a first occurrence: the object's, so that people find it, and a hash of what is told and when."""
    told = "\0".join((*note.what, note.time.isoformat()))
    return f"{note.involved['name'][:_NAME].rstrip('.-')}.{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def _cut(message: str) -> str:
    text = message.encode(errors="replace")
    return (text if len(text) <= _MESSAGE else text[: _MESSAGE - 3]).decode(errors="ignore") + ("…" if len(text) > _MESSAGE else "")


def _timestamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
