"""Waiting for something to become true, with a deadline: the one place where tests sleep, and only between two looks."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar, cast

T = TypeVar("T")

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.25
_NOT_YET: tuple[type[Exception], ...] = (AssertionError,)


def eventually(condition: Callable[[], T | None], within: float, what: str, *, ignoring: tuple[type[Exception], ...] = _NOT_YET) -> T:
    """Return the first true value of a condition.

    Args:
        condition: Called until it returns something true; it must only look.
        within: Seconds until it has failed. There is one more look at the deadline.
        what: What should become true, for the message.
        ignoring: Exceptions of the condition that mean "not yet"; any other is raised at once.

    Raises:
        AssertionError: The deadline passed. The message says what was seen last.

    """
    last: object = None
    for pause in _pauses(within):
        try:
            value = condition()
        except ignoring as error:
            last = error
        else:
            if value:
                return value
            last = value
        time.sleep(pause)
    raise AssertionError(_message(what, within, last))


async def eventually_async(
    condition: Callable[[], T | Awaitable[T | None] | None], within: float, what: str, *, ignoring: tuple[type[Exception], ...] = _NOT_YET
) -> T:
    """Do the same on the event loop; the condition may be a coroutine function or a plain one."""
    last: object = None
    for pause in _pauses(within):
        try:
            seen = condition()
            value = await seen if inspect.isawaitable(seen) else seen
        except ignoring as error:
            last = error
        else:
            if value:
                return cast("T", value)
            last = value
        await asyncio.sleep(pause)
    raise AssertionError(_message(what, within, last))


def _pauses(within: float) -> Iterator[float]:
    """Give the pause after each look, growing, the last one ending at the deadline; 0 follows the last look."""
    deadline = time.monotonic() + within
    pause = _FIRST_PAUSE
    while (left := deadline - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    yield 0


def _message(what: str, within: float, last: object) -> str:
    seen = f"{type(last).__name__}: {last}" if isinstance(last, Exception) else repr(last)
    return f"not within {within:g} s: {what}; last seen: {seen}"
