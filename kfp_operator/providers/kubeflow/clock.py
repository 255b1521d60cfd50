"""The provider's clocks, so that a test can let an hour pass in a second."""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the time is, and waiting."""

    def now(self) -> datetime:
        """The wall clock, aware and in UTC: compared with what the backend tells."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Wait so long."""

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait until the event is set, at most so long."""


class RealClock:
    """The machine's."""

    def now(self) -> datetime:
        """See `Clock`."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await asyncio.sleep(seconds)

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """See `Clock`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()
