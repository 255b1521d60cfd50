"""Consumes the operator's own events and makes each Run's status equal to what they say.

Completions are written at once. Intermediate states are coalesced: the first waits up to `GATHER` seconds for the next, and a Run gets
at most a short burst of writes, then one per `SPACING` seconds; a state that a later one replaced is acknowledged at once. Every
other delivery is acknowledged only after its effect: the status is patched and, for a completion, its end is recorded in the
RunConfiguration that made the Run and the documented copy is stored.

What cannot be understood is dead-lettered with the reason; what is about a Run that is gone is acknowledged and counted; failures of
the API server or the bus are waited out, for as long as it takes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from kfp_operator.api.clip import clip
from kfp_operator.api.names import Names
from kfp_operator.api.run import Run, RunStatus
from kfp_operator.api.states import RunState
from kfp_operator.errors import BusError, ClusterError, Conflict, EventError, LeadershipLost, NotFound, Unprocessable
from kfp_operator.events import envelope
from kfp_operator.events.bus import Delivery
from kfp_operator.events.subjects import Subjects
from kfp_operator.operator.backoff import backoff
from kfp_operator.operator.faults import fault_point
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.outbox import Outbox
from kfp_operator.operator.ports import Guard, Now, Objects, Wake
from kfp_operator.operator.store import Key, Store
from kfp_operator.reconcile.projection import project
from kfp_operator.schemas import RunCompletion
from kfp_operator.schemas import RunStatus as RunStatusEvent

log = logging.getLogger(__name__)

DURABLE = "projector"
GATHER = 2.0
SPACING = 10.0
BURST = 2
"""Writes of intermediate states before SPACING applies: waiting and running are both seen at once."""
HOLD = 4.0
"""Seconds between two signs of life for a held delivery (the consumer's ack_wait is 10)."""
AT_ONCE = 64
"""Runs whose status is written at the same time."""
CONFLICTS = 6
MAX_BACKOFF = 30.0
MAX_CONFLICT_BACKOFF = 2.0
"""Somebody who keeps changing the Run does not stop: only luck helps, so it is tried often."""

Event = RunStatusEvent | RunCompletion


class Record(Protocol):
    """Keeps the end of a run where the Run itself is not needed for it any more."""

    def __call__(self, event: RunCompletion, *, news: bool) -> Awaitable[None]:
        """`news`: the Run's status did not show it before. ClusterError, LeadershipLost: to be tried again."""


class Timers(Protocol):
    """How the projector waits and starts work: asyncio in the operator, simulated in the model test."""

    def time(self) -> float:
        """Seconds on a clock that never goes back."""

    def later(self, delay: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` after `delay` seconds."""


class AsyncioTimers:
    """Timers on the running event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def time(self) -> float:
        """The loop's clock."""
        return asyncio.get_running_loop().time()

    def later(self, delay: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` as a task after `delay` seconds."""
        asyncio.get_running_loop().call_later(delay, self._start, work)

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.ensure_future(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(slots=True)
class Buffer:
    """Events of one Run that have arrived and are not in its status."""

    key: Key
    events: list[Event] = field(default_factory=list)
    held: list[tuple[Delivery, Event]] = field(default_factory=list)
    tokens: float = BURST
    refilled: float = 0.0
    due: float = 0.0
    scheduled: bool = False
    flushing: bool = False
    kept: bool = False
    """A sign of life for its deliveries is due while it is written."""
    news: set[int] = field(default_factory=set)
    """Attempts whose completions this process has written to the Run's status."""
    failures: int = 0


class Projector:
    """Turns events into status."""

    def __init__(
        self,
        *,
        subjects: Subjects,
        store: Store,
        objects: Objects,
        outbox: Outbox,
        metrics: Metrics,
        guard: Guard,
        now: Now,
        timers: Timers,
        names: Names,
        replay_window: timedelta,
        saw: Callable[[RunStatusEvent], None],
        record: Record,
        wake: Wake,
    ) -> None:
        self._subjects = subjects
        self._store = store
        self._objects = objects
        self._outbox = outbox
        self._metrics = metrics
        self._guard = guard
        self._now = now
        self._timers = timers
        self._names = names
        self._replay_window = replay_window
        self._saw = saw
        self._record = record
        self._wake = wake
        self._buffers: dict[str, Buffer] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    @property
    def pending(self) -> int:
        """Runs with events that are not in their status."""
        return sum(1 for b in self._buffers.values() if b.events)

    async def accept(self, delivery: Delivery) -> None:
        """Take one delivery in; its effect follows."""
        message = delivery.message
        try:
            data = envelope.receive(self._subjects, message).data
        except EventError as error:
            log.warning("message %d of stream %s is dead-lettered: %s", message.sequence, message.stream, error)
            self._metrics.projected.labels(result="poison").inc()
            try:
                await self._outbox.dead_letter(message, str(error))
            except BusError:
                await delivery.nak(HOLD)
                return
            await delivery.term(str(error))
            return
        if isinstance(data, RunCompletion) and data.observed:
            await self._pass_on(delivery, data)
            return
        key = Key.parse("Run", data.run_name)
        if self._store.key_of(data.run_uid) not in (None, key):  # a uid has one name for ever: somebody else made this up
            log.warning("message %d of stream %s is ignored: uid %s is not that of %s", message.sequence, message.stream, data.run_uid, key)
            self._metrics.projected.labels(result="foreign").inc()
            await delivery.ack()
            return
        buffer = self._buffers.setdefault(data.run_uid, Buffer(key, refilled=self._timers.time()))
        final = isinstance(data, RunCompletion)
        if isinstance(data, RunStatusEvent):
            self._saw(data)
            if not RunState(data.state).completes:  # the end alone leaves no trace in status that would replace earlier states
                await self._ack_superseded(buffer, data.transition)
        buffer.events.append(data)
        buffer.held.append((delivery, data))
        self._plan(data.run_uid, buffer, 0.0 if final else self._wait(buffer))

    def take(self, event: Event) -> None:
        """Have an event projected that was read from the bus, not delivered."""
        buffer = self._buffers.setdefault(event.run_uid, Buffer(Key.parse("Run", event.run_name), refilled=self._timers.time()))
        buffer.events.append(event)
        self._plan(event.run_uid, buffer, 0.0 if isinstance(event, RunCompletion) else self._wait(buffer))

    async def _pass_on(self, delivery: Delivery, event: RunCompletion) -> None:
        """A completion of a run without a Run object: there is no status, only the copy for plain subscribers."""
        try:
            await self._copy([event])
        except (BusError, LeadershipLost) as error:
            log.info("the copy of the completion of run %s is stored again: %s", event.run_id, error)
            await delivery.nak(HOLD)
            return
        self._metrics.projected.labels(result="observed").inc()
        await delivery.ack()

    async def _ack_superseded(self, buffer: Buffer, transition: int) -> None:
        held = buffer.held
        buffer.held = [(d, e) for d, e in held if not (isinstance(e, RunStatusEvent) and e.transition < transition)]
        for delivery, event in held:
            if isinstance(event, RunStatusEvent) and event.transition < transition:
                await delivery.ack()

    def _wait(self, buffer: Buffer) -> float:
        now = self._timers.time()
        buffer.tokens = min(BURST, buffer.tokens + (now - buffer.refilled) / SPACING)
        buffer.refilled = now
        return GATHER if buffer.tokens >= 1 else max(GATHER, (1 - buffer.tokens) * SPACING)

    def _plan(self, uid: str, buffer: Buffer, delay: float) -> None:
        due = self._timers.time() + delay
        if buffer.scheduled and buffer.due <= due + 0.001:
            return
        buffer.scheduled, buffer.due = True, due
        self._timers.later(min(delay, HOLD), lambda: self._tick(uid))

    async def _tick(self, uid: str) -> None:
        buffer = self._buffers.get(uid)
        if buffer is None or not buffer.scheduled:
            return
        if buffer.flushing:
            buffer.scheduled = False  # the flush under way plans anew at its end, for what has arrived meanwhile
            return
        left = buffer.due - self._timers.time()
        if left > 0.001:
            for delivery, _ in buffer.held:
                await delivery.in_progress()
            self._timers.later(min(left, HOLD), lambda: self._tick(uid))
            return
        await self.flush(uid)

    async def flush(self, uid: str) -> None:
        """Write what has arrived for the Run, then settle its deliveries."""
        buffer = self._buffers.get(uid)
        if buffer is None or buffer.flushing:
            return
        buffer.flushing, buffer.scheduled = True, False
        taken, held = list(buffer.events), list(buffer.held)
        if not buffer.kept:
            buffer.kept = True
            self._timers.later(HOLD, lambda: self._keep(buffer))
        try:
            async with self._slots:
                self._guard()
                await self._apply(uid, buffer, taken)
                for event in taken:
                    if isinstance(event, RunCompletion):
                        await self._record(event, news=event.attempt in buffer.news)
                await self._copy(taken)
        except Conflict as error:
            self._again(uid, buffer, str(error), MAX_CONFLICT_BACKOFF)
            return
        except (ClusterError, BusError, LeadershipLost) as error:
            self._again(uid, buffer, str(error))
            return
        except Exception as error:
            log.exception("the events of %s could not be projected; please report this", buffer.key)
            self._again(uid, buffer, repr(error))
            return
        finally:
            buffer.flushing = False
        buffer.failures = 0
        buffer.events = buffer.events[len(taken) :]
        buffer.held = [h for h in buffer.held if not any(h is done for done in held)]
        for delivery, _ in held:
            await delivery.ack()
            fault_point("acked")
        if buffer.events:
            final = any(isinstance(e, RunCompletion) for e in buffer.events)
            self._plan(uid, buffer, 0.0 if final else self._wait(buffer))
        elif any(isinstance(e, RunCompletion) for e in taken):
            self._buffers.pop(uid, None)

    async def _keep(self, buffer: Buffer) -> None:
        """Tell the bus that its deliveries are being worked on: in a long queue they wait for a slot, and would be delivered again."""
        if not buffer.flushing:
            buffer.kept = False
            return
        for delivery, _ in list(buffer.held):
            await delivery.in_progress()
        self._timers.later(HOLD, lambda: self._keep(buffer))

    def _again(self, uid: str, buffer: Buffer, why: str, most: float = MAX_BACKOFF) -> None:
        buffer.failures += 1
        delay = backoff(buffer.failures, most=most)
        log.info("the status of %s is written again in %.1f s: %s", buffer.key, delay, why)
        self._plan(uid, buffer, delay)

    def forget(self, uid: str) -> None:
        """The Run is gone."""
        buffer = self._buffers.get(uid)
        if buffer is not None and not buffer.events:
            del self._buffers[uid]

    async def _apply(self, uid: str, buffer: Buffer, events: list[Event]) -> None:
        ordered = sorted(events, key=_order)
        counted = False
        for attempt in range(CONFLICTS):
            run = await self._latest(buffer.key, uid, fresh=attempt > 0)
            if run is None:
                self._metrics.projected.labels(result="gone").inc(len(events))
                return
            after = run
            results = []
            for event in ordered:
                made = project(after, event, names=self._names, now=self._now())
                results.append(made.disposition)
                after = after.model_copy(update={"status": made.status})
            if not counted:
                counted = True
                for result in results:
                    self._metrics.projected.labels(result=result).inc()
            if after.status == run.status:
                return
            try:
                await self._write(run, clip(after.status), buffer)
            except Conflict:
                continue
            except NotFound:
                self._metrics.projected.labels(result="gone").inc()
                return
            fault_point("patched")
            told = zip(ordered, results, strict=True)
            buffer.news |= {event.attempt for event, result in told if isinstance(event, RunCompletion) and result == "applied"}
            self._wake(buffer.key)
            return
        raise Conflict(f"Run {buffer.key.namespace}/{buffer.key.name} keeps changing", status=409)

    async def _write(self, run: Run, status: RunStatus, buffer: Buffer) -> None:
        buffer.tokens -= 1
        try:
            written = await self._objects.patch_status(run, status)
        except Unprocessable as error:
            log.warning("the API server refuses the status of Run %s, a reduced one is written: %s", run.metadata.full_name, error)
            self._metrics.status_refused.inc()
            written = await self._objects.patch_status(run, _reduced(run.status, status))
        self._store.put(written)

    async def _latest(self, key: Key, uid: str, *, fresh: bool) -> Run | None:
        stored = self._store.get(key)
        if not fresh and isinstance(stored, Run) and stored.metadata.uid == uid:
            return stored
        try:
            run = await self._objects.get(key)
        except NotFound:
            return None
        if not isinstance(run, Run) or run.metadata.uid != uid:
            return None
        return run

    async def _copy(self, events: list[Event]) -> None:
        """Store the documented copy of completions that are young enough."""
        for event in events:
            if isinstance(event, RunCompletion):
                ended = event.run_end_time
                if ended is not None and self._now() - ended > self._replay_window:
                    continue
                await self._outbox.documented(event)
                fault_point("documented")


def _order(event: Event) -> tuple[int, int, int]:
    if isinstance(event, RunCompletion):
        return (event.attempt, 1, 0)
    return (event.attempt, 0, event.transition)


def _reduced(before: RunStatus, after: RunStatus) -> RunStatus:
    """Only what decides: everything that grows or comes from users is left as it was."""
    return after.model_copy(
        update={
            "artifacts": before.artifacts,
            "history": before.history,
            "message": before.message,
            "failed_task": before.failed_task,
            "url": before.url,
        }
    )
