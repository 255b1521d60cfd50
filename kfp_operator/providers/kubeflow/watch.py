"""Notices that runs have changed, at a cost that follows the runs that are active.

A sweep asks the server for our runs that have not ended (one request per hundred of them; a mark in their description and their end,
which is 1970 until there is one, select them) and looks at each that it followed and that is no longer among them. Where Workflows are
watched, their events say which run to look at, and sweeps are rare; else there is one every poll interval, and rare ones while nothing
is active. Either way what is told is what the server says of the run, so both ways tell the same.

A run that somebody retries is active again and found by a sweep. One that also ended again in between is found among those that ended
lately, which are read now and then, up to a bound.

What is followed is kept while the provider is open: a watch that broke goes on where it was.
"""

import asyncio
import heapq
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from kfp_operator.api.states import RunState
from kfp_operator.providers.kubeflow.api import Api, Document, at, contains, since
from kfp_operator.providers.kubeflow.clock import Clock
from kfp_operator.providers.kubeflow.hints import Hints, Stage
from kfp_operator.providers.kubeflow.naming import mark_of
from kfp_operator.providers.kubeflow.reading import Reader, mark_of_run
from kfp_operator.providers.kubeflow.times import EPOCH, moment
from kfp_operator.providers.kubeflow.workflows import RunWorkflows
from kfp_operator.providers.protocol import RunUpdate, StateChange

log = logging.getLogger(__name__)

REST = 6
"""Poll intervals between two sweeps while nothing is active, or while Workflows tell of changes; and between two looks at the runs that
ended lately."""
OVERLAP = timedelta(minutes=5)
"""How late the server may store an end: its time is Argo's, the row is written when the agent comes to it."""
RECENT_PAGES = 5
FIRST_LOOK_BACK = timedelta(hours=1)
"""How far back the first look goes where nobody knows when an operator last looked."""
LONGEST_LOOK_BACK = timedelta(days=7)
AT_ONCE = 6
"""Runs that are looked at at the same time."""
LOOK_AGAIN = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds after which a run is looked at again that the server shows behind its Workflow."""
REMEMBERED = 10_000
_FINAL_PHASES = frozenset({"Succeeded", "Failed", "Error"})
End = tuple[int, RunState, datetime]
"""Attempt, state and time of an end."""


@dataclass(slots=True)
class Followed:
    """A run that has not ended, as last told."""

    told: RunUpdate | None = None
    looks: int = 0
    """How often the server was behind the Workflow in a row."""
    stage: Stage | None = None
    """The stage of the Workflow that the server is expected to show."""


class Watch:
    """The runs of one Provider. `provider` is its "namespace/name"; `looked_until`: when an operator last looked, if known."""

    def __init__(
        self,
        api: Api,
        reader: Reader,
        workflows: RunWorkflows,
        clock: Clock,
        *,
        provider: str,
        poll_interval: float,
        by_workflows: bool,
        looked_until: datetime | None = None,
    ) -> None:
        self._api = api
        self._reader = reader
        self._clock = clock
        self._mark = contains("description", mark_of(provider))
        self._provider = provider
        self._poll_interval = poll_interval
        self._wake = asyncio.Event()
        self._hints = Hints(workflows, clock, self._wake) if by_workflows else None
        self._followed: dict[str, Followed] = {}
        self._soon: list[tuple[float, str]] = []
        self._ended: OrderedDict[str, End] = OrderedDict()
        since_then = looked_until - OVERLAP if looked_until is not None else clock.now() - FIRST_LOOK_BACK
        self._recent_from = max(since_then, clock.now() - LONGEST_LOOK_BACK)
        self._recent_due = clock.monotonic()
        self._sweep_due = clock.monotonic()

    @property
    def active(self) -> int:
        """How many runs are followed."""
        return len(self._followed)

    def follow(self, run_id: str) -> None:
        """A run that the server has, and which has not ended as far as is known."""
        if run_id in self._followed:
            return
        self._followed[run_id] = Followed()
        now = self._clock.monotonic()
        if self._hints is not None and self._hints.watching:
            self._look_again(run_id, self._followed[run_id], self._hints.stage_of(run_id))
        self._sweep_due = min(self._sweep_due, now + self._pause())
        self._wake.set()

    def follows(self, run_id: str) -> bool:
        """Whether the run is followed."""
        return run_id in self._followed

    def leave(self, run_id: str) -> None:
        """A run that did not get there after all."""
        self._followed.pop(run_id, None)

    async def prime(self) -> None:
        """Find out what is active before anything is told."""
        async for page in self._api.runs([self._mark, at("finished_at", EPOCH)], sort="created_at asc"):
            for run in page:
                if self._is_ours(run):
                    self._followed.setdefault(str(run["run_id"]), Followed())

    async def updates(self) -> AsyncGenerator[RunUpdate]:
        """What changes, beginning with every run that is active or was when the watch broke."""
        for followed in self._followed.values():
            followed.told = None
        self._sweep_due = self._clock.monotonic()
        if self._hints is not None:
            self._hints.open()
        try:
            while True:
                self._wake.clear()
                async for update in self._turn():
                    yield update
                left = min(self._sweep_due, self._recent_due, self._soon[0][0] if self._soon else float("inf")) - self._clock.monotonic()
                if left > 0:
                    await self._clock.wait(self._wake, left)
        finally:
            if self._hints is not None:
                await self._hints.close()

    async def _turn(self) -> AsyncIterator[RunUpdate]:
        hinted = self._take_hints()
        self._sweep_due = min(self._sweep_due, self._clock.monotonic() + self._pause())  # sooner where Workflows tell no longer
        if self._clock.monotonic() >= self._sweep_due:
            async for update in self._sweep():
                yield update
            self._sweep_due = self._clock.monotonic() + self._pause()
        elif hinted:
            async for update in self._look(hinted):
                yield update
        if self._clock.monotonic() >= self._recent_due:
            async for update in self._recent():
                yield update
            self._recent_due = self._clock.monotonic() + REST * self._poll_interval

    def _pause(self) -> float:
        """Seconds until the next sweep."""
        told = self._hints is not None and self._hints.watching
        return REST * self._poll_interval if told or not self._followed else self._poll_interval

    def _is_ours(self, run: Document) -> bool:
        mark = mark_of_run(run)
        return mark is not None and mark.belongs_to(self._provider)

    # Sweeps

    async def _sweep(self) -> AsyncIterator[RunUpdate]:
        before, seen = set(self._followed), set()
        async for page in self._api.runs([self._mark, at("finished_at", EPOCH)], sort="created_at asc"):
            for run in page:
                if self._is_ours(run):
                    seen.add(str(run["run_id"]))
                    for update in await self._told(run):
                        yield update
        async for update in self._look([run_id for run_id in before if run_id not in seen and run_id in self._followed]):
            yield update

    async def _look(self, run_ids: Sequence[str]) -> AsyncIterator[RunUpdate]:
        """Ask for each of these."""
        for first in range(0, len(run_ids), AT_ONCE):
            some = run_ids[first : first + AT_ONCE]
            for run_id, run in zip(some, await asyncio.gather(*map(self._api.run, some)), strict=True):
                if run is None:
                    update = self._gone(run_id)
                    if update is not None:
                        yield update
                    continue
                for update in await self._told(run):
                    yield update

    async def _told(self, run: Document) -> list[RunUpdate]:
        """What is news of a run that was read."""
        run_id = str(run["run_id"])
        update = await self._reader.read(run)
        if update.state.final:
            self._followed.pop(run_id, None)
            return [update] if self._is_news(run_id, update) else []
        followed = self._followed.setdefault(run_id, Followed())
        before, followed.told = followed.told, update
        if self._hints is not None and _behind(update, stage := self._hints.stage_of(run_id)):
            self._look_again(run_id, followed, stage)
        else:
            followed.looks = 0
        return [] if before is not None and replace(before, tasks=()) == replace(update, tasks=()) else [update]

    def _is_news(self, run_id: str, update: RunUpdate) -> bool:
        """Whether this end was not told before."""
        end = (update.attempt, update.state, update.history[-1].time)
        before = self._ended.get(run_id)
        self._ended[run_id] = end
        self._ended.move_to_end(run_id)
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        return before != end

    def _gone(self, run_id: str) -> RunUpdate | None:
        """A run that the server knew and does not know any more; None: nobody was told of it."""
        followed = self._followed.pop(run_id, None)
        if followed is None:
            return None
        told = followed.told or RunUpdate(run_id, run_id, (StateChange(RunState.UNKNOWN, self._clock.now()),))
        return replace(told, gone=True)

    # Hints

    def _take_hints(self) -> list[str]:
        """Runs to look at now, because their Workflow changed or the server was behind it."""
        found: dict[str, None] = {}
        if self._hints is not None:
            if self._hints.missed:
                self._hints.missed = False
                self._sweep_due = self._clock.monotonic()
            for run_id, (_, persisted) in self._hints.changed.items():
                if run_id in self._followed:
                    self._followed[run_id].looks = 0
                    found[run_id] = None
                elif run_id in self._ended and not persisted:  # somebody retries it
                    found[run_id] = None
            self._hints.changed.clear()
        now = self._clock.monotonic()
        while self._soon and self._soon[0][0] <= now:
            run_id = heapq.heappop(self._soon)[1]
            if run_id in self._followed:
                found[run_id] = None
        return list(found)

    def _look_again(self, run_id: str, followed: Followed, stage: Stage | None) -> None:
        if followed.looks < len(LOOK_AGAIN) and stage is not None:
            heapq.heappush(self._soon, (self._clock.monotonic() + LOOK_AGAIN[followed.looks], run_id))
            followed.looks += 1

    # Runs that ended lately

    async def _recent(self) -> AsyncIterator[RunUpdate]:
        """Tell runs of a second or later attempt that ended since the last look, whether or not they were seen active."""
        begun, last, pages = self._clock.now(), None, 0
        predicates = [self._mark, since("finished_at", self._recent_from)]
        async for page in self._api.runs(predicates, sort="finished_at asc", most_pages=RECENT_PAGES):
            pages += 1
            for run in page:
                last = moment(run.get("finished_at")) or last
                if self._is_ours(run) and str(run["run_id"]) not in self._followed:
                    for update in await self._told_again(run):
                        yield update
        whole = pages < RECENT_PAGES or last is None
        self._recent_from = max(self._recent_from, begun - OVERLAP if whole or last is None else last)

    async def _told_again(self, run: Document) -> list[RunUpdate]:
        history = [entry.get("state") for entry in run.get("state_history") or () if isinstance(entry, dict)]
        ends = [index for index, state in enumerate(history) if state in ("FAILED", "SUCCEEDED", "CANCELED")]
        if not ends or ends[0] == len(history) - 1:
            return []  # the usual case: it ended once
        return await self._told(run)


def _behind(update: RunUpdate, stage: Stage | None) -> bool:
    """Whether the server shows less than the Workflow does."""
    if stage is None:
        return False
    phase, persisted = stage
    if phase in _FINAL_PHASES or persisted:
        return not update.state.final
    return phase == "Running" and update.state is RunState.QUEUED
