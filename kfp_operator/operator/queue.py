"""The work queue: which objects are to be looked at, each at most once at a time.

The semantics are those of client-go's workqueue. A key that is added while it waits is one entry; a key that is added while it
is being worked on comes again after `done`; so workers run in parallel, but never two on one object. `add_after` and `retry`
bring a key later, `retry` with a delay that doubles with each failure in a row until `forget`. Reconciling is level-triggered:
a key says that something may have changed, never what.
"""

import asyncio
import heapq
import itertools
import random
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class QueueShutDown(Exception):
    """There will be no more keys."""


class WorkQueue(Generic[K]):
    """Keys to work on. Everything happens on one event loop; times are of its clock.

    `base` and `cap` bound the delay of `retry` in seconds: base, 2*base, 4*base ... cap, each spread by +-20 %.
    """

    def __init__(self, *, base: float = 0.5, cap: float = 300.0, chance: random.Random | None = None) -> None:
        self._base = base
        self._cap = cap
        self._chance = random.Random() if chance is None else chance  # noqa: S311 -- spreads load, guards nothing
        self._ready: asyncio.Queue[K | None] = asyncio.Queue()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        """Keys that wait for a worker now; delayed ones are not counted."""
        return len(self._waiting) + len(self._again)

    @property
    def delayed(self) -> int:
        """Keys that will be added later."""
        return len(self._due)

    @property
    def working(self) -> int:
        """Keys that workers hold now."""
        return len(self._working)

    def failures(self, key: K) -> int:
        """How often `retry` was called in a row."""
        return self._failures.get(key, 0)

    def add(self, key: K) -> None:
        """Have the key worked on, soon."""
        if self._closed:
            return
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Have the key worked on in `seconds`, or earlier when an earlier time was asked for before."""
        if self._closed:
            return
        if seconds <= 0:
            self.add(key)
            return
        due = asyncio.get_running_loop().time() + seconds
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._arm()

    def retry(self, key: K, *, at_least: float = 0.0) -> float:
        """Have the key worked on again after a failure; return the delay in seconds. `at_least`: what the other side asked for."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(self._cap, self._base * 2.0 ** min(failures - 1, 64)) * self._chance.uniform(0.8, 1.2)
        delay = max(delay, at_least)
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """It went well: the next `retry` begins with the shortest delay."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Wait for a key and take it; `done` must follow. Raises QueueShutDown."""
        key = await self._ready.get()
        if key is None:
            self._ready.put_nowait(None)
            raise QueueShutDown
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """The work on the key has ended, well or not."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def shutdown(self) -> None:
        """Hand out what is ready, then raise QueueShutDown in every `get`; nothing more is added."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._heap.clear()
        self._due.clear()
        self._ready.put_nowait(None)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._timer = asyncio.get_running_loop().call_at(self._heap[0][0], self._release)

    def _release(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:  # else an earlier time replaced this entry, and has passed
                del self._due[key]
                self.add(key)
        self._arm()
