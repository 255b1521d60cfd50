"""Runs, live: each change as it comes, until all have ended.

In a terminal a table that changes, elsewhere one line per change. What is seen is what the API server's watch tells about status.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.live import Live
from rich.table import Table
from rich.text import Text

from examples.demo import DemoError
from examples.demo.text import Page
from kfp_operator.api.names import DEFAULT_GROUP
from kfp_operator.api.run import Run
from kfp_operator.cli.progress import Line, clean, news, view
from kfp_operator.cli.target import Target, connect
from kfp_operator.cli.waiting import Deleted, Trouble, follow

_STYLES = {"succeeded": "green", "failed": "red", "stopped": "yellow", "running": "cyan"}


@dataclass
class _Trail:
    """What was seen of one Run."""

    name: str
    run: Run | None = None
    lines: list[Line] = field(default_factory=list)


def follow_to_the_end(kubeconfig: Path, namespace: str, names: Sequence[str], page: Page, within: float) -> Mapping[str, Run]:
    """Show the Runs until they have ended and return them as they are then.

    Raises:
        DemoError: One had not ended after `within` seconds, or was deleted.

    """
    trails = [_Trail(name) for name in names]
    asyncio.run(_follow_all(kubeconfig, namespace, trails, page, within))
    ended = {trail.name: trail.run for trail in trails if trail.run is not None and view(trail.run).ended}
    for trail in trails:
        if trail.name not in ended:
            last = trail.lines[-1] if trail.lines else Line("unseen")
            raise DemoError(f"Run {namespace}/{trail.name} did not end within {within:g} s: it is {last.state} {last.message}".rstrip())
    return ended


async def _follow_all(kubeconfig: Path, namespace: str, trails: Sequence[_Trail], page: Page, within: float) -> None:
    shown = _table if page.console.is_terminal and not page.console.is_dumb_terminal else None
    with Live(console=page.console, auto_refresh=False) as live:
        if shown is None:
            live.stop()

        def happened(trail: _Trail, line: Line) -> None:
            trail.lines.append(line)
            if shown is None:
                page.console.print(_plain(trail.name, line))

        async def one(target: Target, trail: _Trail) -> None:
            async with aclosing(follow(target, trail.name)) as looks:
                async for look in looks:
                    match look:
                        case Trouble(message):
                            happened(trail, Line("no answer", message))
                        case Deleted():
                            return
                        case run:
                            for line in news(trail.run, run):
                                happened(trail, line)
                            trail.run = run
                            if view(run).ended:
                                return

        async def redraw() -> None:
            while shown is not None:
                live.update(shown(trails), refresh=True)
                await asyncio.sleep(0.25)

        async with connect(str(kubeconfig), None, namespace=namespace, group=DEFAULT_GROUP) as target:
            drawing = asyncio.create_task(redraw())
            try:
                async with asyncio.timeout(within):
                    await asyncio.gather(*(one(target, trail) for trail in trails))
            except TimeoutError:
                return
            finally:
                drawing.cancel()
                if shown is not None:
                    live.update(shown(trails), refresh=True)


def _plain(name: str, line: Line) -> Text:
    time = (line.time or datetime.now(UTC)).astimezone().strftime("%H:%M:%S")
    text = Text.assemble(f"   {time}  {name:<16} ", (f"{line.state:<10}", _STYLES.get(line.state, "")), f"  {clean(line.message)}")
    text.rstrip()
    return text


def _table(trails: Sequence[_Trail]) -> Table:
    """One row per Run: its states so far with their seconds, and why."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for _ in range(4):
        table.add_column(no_wrap=True, overflow="ellipsis")
    for trail in trails:
        now = datetime.now(UTC)
        states = Text()
        timed = [line for line in trail.lines if line.time is not None]
        for index, line in enumerate(timed):
            until = timed[index + 1].time if index + 1 < len(timed) else None
            ended = trail.run is not None and view(trail.run).ended and until is None
            seconds = "" if ended or line.time is None else f" {((until or now) - line.time).total_seconds():.0f} s"
            states.append(" → " if index else "")
            states.append(line.state, _STYLES.get(line.state, ""))
            states.append(seconds, "dim")
        last = trail.lines[-1] if trail.lines else Line("waiting")
        if not timed:
            states.append(last.state, "dim")
        table.add_row("", Text(trail.name, "bold"), states, Text(clean(last.message, 100), "dim"))
    return table
