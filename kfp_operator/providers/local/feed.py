"""What the watches of a provider have yet to tell.

Updates are whole, so a watch that is slow gets the latest of each run, not all of them: what it holds is bounded by the number of runs.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable

from kfp_operator.errors import Retryable
from kfp_operator.providers.protocol import RunUpdate


class Watcher:
    """One watch: the latest untold update of each run, in the order in which runs changed."""

    def __init__(self) -> None:
        self._pending: dict[str, RunUpdate] = {}
        self._end: Retryable | None = None
        self._ended = False
        self._changed = asyncio.Event()

    def begin(self, updates: Iterable[RunUpdate]) -> None:
        """Tell these too, but where something newer came meanwhile."""
        for update in updates:
            self._pending.setdefault(update.submission_id, update)
        self._changed.set()

    def tell(self, update: RunUpdate) -> None:
        """Put the update last."""
        self._pending.pop(update.submission_id, None)
        self._pending[update.submission_id] = update
        self._changed.set()

    def end(self, error: Retryable | None) -> None:
        """End the watch, with an error or without, once all is told."""
        self._end, self._ended = error, True
        self._changed.set()

    async def updates(self) -> AsyncIterator[RunUpdate]:
        """Each update as it comes."""
        while True:
            while self._pending:
                yield self._pending.pop(next(iter(self._pending)))
            if self._ended:
                if self._end is not None:
                    raise self._end
                return
            self._changed.clear()
            await self._changed.wait()


class Feed:
    """All watches of one provider."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()
        self._told: dict[str, RunUpdate] = {}

    def join(self) -> Watcher:
        """A new watch; it hears everything from now on."""
        watcher = Watcher()
        self._watchers.add(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """The watch is over."""
        self._watchers.discard(watcher)

    def tell(self, update: RunUpdate) -> None:
        """Tell all watches, unless it is what they were told last."""
        if self._told.get(update.submission_id) == update:
            return
        if update.state.final:
            self._told.pop(update.submission_id, None)
        else:
            self._told[update.submission_id] = update
        for watcher in self._watchers:
            watcher.tell(update)

    def end(self, error: Retryable | None = None) -> None:
        """End all watches."""
        for watcher in self._watchers:
            watcher.end(error)
