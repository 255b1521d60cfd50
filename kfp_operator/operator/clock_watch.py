"""Notices that the wall clock was set, or that the machine slept.

Who waits for a tick of a schedule does so on the clock of the event loop, which neither a correction of the time nor a suspended
machine moves: without this, a tick would come late by as much as the wall clock jumped ahead.
"""

import asyncio
import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between looks."""
TOLERANCE = 0.5
"""Seconds that the clocks may drift apart from one look to the next."""


class ClockWatch:
    """Compares the wall clock with one that runs evenly; `jumped` is called when they have parted. Times are in seconds."""

    def __init__(
        self, jumped: Callable[[], None], *, wall: Callable[[], float] = time.time, even: Callable[[], float] = time.monotonic
    ) -> None:
        self._jumped = jumped
        self._wall = wall
        self._even = even
        self._offset = wall() - even()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            self.look()

    def look(self) -> None:
        """Compare the clocks once."""
        offset = self._wall() - self._even()
        jump, self._offset = offset - self._offset, offset
        if abs(jump) > TOLERANCE:
            log.info("the wall clock went %.1f s %s than expected", abs(jump), "further" if jump > 0 else "less far")
            self._jumped()
