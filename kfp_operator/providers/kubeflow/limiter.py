"""How fast requests may go out: so many per second, none while the server has asked for a pause."""

import asyncio

from kfp_operator.errors import Retryable
from kfp_operator.providers.kubeflow.clock import Clock

SHORT_PAUSE = 3.0
"""Seconds of a pause that is waited out; who comes during a longer one is told to come again."""
LONGEST_PAUSE = 600.0
"""Seconds for which the server is obeyed, whatever it says."""


class Limiter:
    """A token bucket. `rate` in requests per second, `burst` requests at once."""

    def __init__(self, rate: float, burst: float, clock: Clock) -> None:
        self._rate = rate
        self._burst = max(burst, 1.0)
        self._clock = clock
        self._tokens = self._burst
        self._filled = clock.monotonic()
        self._paused_until = float("-inf")
        self._turn = asyncio.Lock()

    def pause(self, seconds: float) -> None:
        """Let nothing out for so long: the server has asked for it."""
        until = self._clock.monotonic() + min(max(seconds, 0.0), LONGEST_PAUSE)
        self._paused_until = max(self._paused_until, until)

    async def acquire(self) -> None:
        """Return when a request may go out, in the order of the calls. Retryable during a long pause: nothing was sent."""
        async with self._turn:
            left = self._paused_until - self._clock.monotonic()
            if left > SHORT_PAUSE:
                raise Retryable(f"the server has asked for a pause, {left:.0f} s of it are left", reason="RateLimited", after=left)
            if left > 0:
                await self._clock.sleep(left)
            self._refill()
            if self._tokens < 1:
                await self._clock.sleep((1 - self._tokens) / self._rate)
                self._refill()
            self._tokens -= 1

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
