"""What the demo prints: headings, sentences, the output of commands, JSON in few lines."""

import json
import time
from typing import Any

from rich.console import Console
from rich.text import Text

_WIDTH = 128  # of JSON that is kept on one line
_INDENT = "   "


class Page:
    """Writes to standard output. Headings are numbered and tell the seconds since the start."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, soft_wrap=True)
        self.began = time.monotonic()
        self._steps = 0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.began

    def heading(self, title: str) -> None:
        """Begin a step."""
        self._steps += 1
        at = f"  [{self.seconds:.0f} s]"
        self.console.print(Text.assemble("\n", (f"{self._steps}  {title}", "bold cyan"), (at, "dim")))

    def say(self, text: str, style: str = "") -> None:
        """A sentence."""
        self.console.print(Text(_INDENT + text, style))

    def command(self, line: str) -> None:
        """A command as one would type it."""
        self.console.print(Text.assemble(_INDENT, ("$ ", "dim"), (line, "bold")))

    def output(self, text: str, style: str = "") -> None:
        """What a command printed, or lines of a log."""
        for line in text.rstrip().splitlines():
            self.console.print(Text(_INDENT + line, style))

    def end(self, text: str, style: str = "") -> None:
        """The last line, with the seconds since the start."""
        self.console.print(Text(f"\n{text} ({self.seconds:.0f} s)", style))

    def verdict(self, good: bool, text: str) -> None:
        """One line of the end."""
        mark = ("ok  ", "bold green") if good else ("NO  ", "bold red")
        self.console.print(Text.assemble(_INDENT, mark, (text, "" if good else "bold red")))


def pretty(document: Any, indent: int = 0) -> str:
    """JSON that a person can read: lines are filled, and what does not fit on one begins on its own."""
    flat = json.dumps(document, ensure_ascii=False)
    if not isinstance(document, dict | list) or not document or len(flat) + indent <= _WIDTH:
        return flat
    inner = " " * (indent + 2)
    if isinstance(document, dict):
        items = [f"{json.dumps(key, ensure_ascii=False)}: {pretty(value, indent + 2)}" for key, value in document.items()]
    else:
        items = [pretty(value, indent + 2) for value in document]
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 2 <= _WIDTH and "\n" not in lines[-1] + item:
            lines[-1] += f", {item}"
        else:
            lines.append(inner + item)
    start, end = ("{", "}") if isinstance(document, dict) else ("[", "]")
    return f"{start}\n" + ",\n".join(lines) + f"\n{' ' * indent}{end}"
