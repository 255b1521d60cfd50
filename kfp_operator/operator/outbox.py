"""Sends the events of Runs, counted: what the controllers and the projector see of the bus."""

from dataclasses import dataclass
from datetime import datetime

from kfp_operator.errors import BusError
from kfp_operator.events import binding, envelope, publisher
from kfp_operator.events.bus import Bus, StoredMessage
from kfp_operator.events.publisher import SlotTaken, Stored
from kfp_operator.events.subjects import Subjects
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.ports import Guard, Now
from kfp_operator.schemas import RunCompletion, RunStatus


@dataclass(frozen=True, slots=True)
class Recalled:
    """What the bus holds of a Run."""

    status: RunStatus | None
    completion: RunCompletion | None


class Outbox:
    """Stores events once; `mode` is the content mode of the documented copy, None: there is none."""

    def __init__(self, bus: Bus, subjects: Subjects, *, mode: binding.ContentMode | None, metrics: Metrics, guard: Guard, now: Now) -> None:
        self._bus = bus
        self._subjects = subjects
        self._mode = mode
        self._metrics = metrics
        self._guard = guard
        self._now = now

    async def status(self, data: RunStatus) -> Stored | SlotTaken:
        """Store a run-status."""
        return await self._store(data, "status", data.time)

    async def completion(self, data: RunCompletion) -> Stored | SlotTaken:
        """Store a run-completion."""
        return await self._store(data, "completion", data.run_end_time)

    async def recall(self, namespace: str, name: str, uid: str) -> Recalled:
        """What is stored of a Run: its newest run-status and its newest completion. Bytes that are no events are moved aside."""
        self._guard()
        status = self._subjects.run_status(namespace, name, uid, 1).rpartition(".")[0] + ".*"
        last = await publisher.newest(self._bus, self._subjects, status)
        completed = self._subjects.run_completion(namespace, name, uid, 1).rpartition(".")[0] + ".*"
        completion = await publisher.newest(self._bus, self._subjects, completed)
        return Recalled(
            last if isinstance(last, RunStatus) else None,
            completion if isinstance(completion, RunCompletion) else None,
        )

    async def documented(self, data: RunCompletion) -> None:
        """Store the copy of a completion for plain subscribers."""
        if self._mode is None:
            return
        self._guard()
        event = envelope.build(data)
        new = await publisher.publish_documented(self._bus, self._subjects, event, self._mode)
        self._metrics.events_published.labels(type="documented", result="stored" if new else "duplicate").inc()

    async def dead_letter(self, message: StoredMessage, reason: str) -> None:
        """Keep a message that nobody can understand."""
        self._guard()
        await publisher.dead_letter(self._bus, self._subjects, message, reason)

    async def _store(self, data: RunStatus | RunCompletion, kind: str, happened: datetime | None) -> Stored | SlotTaken:
        self._guard()
        try:
            stored = await publisher.store(self._bus, self._subjects, data)
        except BusError:
            self._metrics.events_published.labels(type=kind, result="retry").inc()
            raise
        already = isinstance(stored, SlotTaken) or stored.already
        self._metrics.events_published.labels(type=kind, result="duplicate" if already else "stored").inc()
        if not already and happened is not None:
            self._metrics.publish_lag.labels(type=kind).observe(max((self._now() - happened).total_seconds(), 0.0))
        return stored
