"""Telling people what goes on: sentences, and a line that changes while they wait."""

import sys
import time
from typing import TextIO

_WIDTH = 110
_BETWEEN_LINES = 20.0  # seconds, where a line cannot be rewritten: in a log


class Progress:
    """Writes to standard error, or to another stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._rewrites = self._stream.isatty()
        self._open = False
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self._clear()
        print(text, file=self._stream, flush=True)
        self._last = time.monotonic()

    def show(self, text: str) -> None:
        """Show where things stand; in a terminal it replaces the last such line, in a log it is written every 20 s."""
        if self._rewrites:
            self._clear()
            print(text[:_WIDTH], end="", file=self._stream, flush=True)
            self._open = True
        elif time.monotonic() - self._last >= _BETWEEN_LINES:
            self.say(text)

    def _clear(self) -> None:
        if self._open:
            print("\r\033[K", end="", file=self._stream)
            self._open = False


def duration(seconds: float) -> str:
    """Write a time as people do: 42 s, 3 min 05 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
