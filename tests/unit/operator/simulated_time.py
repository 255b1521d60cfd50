"""An event loop whose clock is simulated: waiting takes no time, and an hour of timers runs in a moment, always in the same order."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class StuckError(AssertionError):
    """Everything waits, and no timer is set: in real life this would wait for ever."""


class _Selector(selectors.SelectSelector):
    """Instead of waiting for the next timer, turns the clock to it."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events:
            return events
        if timeout is None:
            raise StuckError
        self.now += timeout
        return events


class SimulatedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._simulated = _Selector()
        super().__init__(self._simulated)

    def time(self) -> float:
        return self._simulated.now

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Do at once what is for a thread: no thread's time is simulated."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            done.set_exception(error)
        return done


def run(main: Coroutine[Any, Any, T], *, within: float = 100_000) -> T:
    """Run a coroutine to its end under simulated time, at most `within` seconds of it."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(asyncio.wait_for(main, within))


def now() -> float:
    """The simulated time in seconds."""
    return asyncio.get_running_loop().time()


async def until(condition: Callable[[], bool], *, within: float) -> None:
    """Let simulated time pass until something is true, at most `within` seconds of it."""
    deadline = now() + within
    while not condition():
        assert now() < deadline, f"not within {within} simulated seconds"
        await asyncio.sleep(0.1)
