"""Following a Run until it ends: what the API server's watch tells, shown as it comes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from kfp_operator.api.run import Run
from kfp_operator.cli.exits import ExitCode
from kfp_operator.cli.progress import Line, View, clean, clean_all, length, news, summary, view
from kfp_operator.cli.target import Target
from kfp_operator.errors import ClusterUnavailable, Gone, NotFound

WATCH_SECONDS = 60
"""After which the object is read again: a connection that died silently costs no more than this and the client's timeout."""
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
_COLOURS = {"succeeded": "green", "failed": "red", "upstream_failed": "red", "stopped": "yellow", "skipped": "yellow", "waiting": "dim"}


@dataclass(frozen=True, slots=True)
class Trouble:
    """The API server does not answer; it is asked again."""

    message: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """The Run is gone."""


async def follow(target: Target, name: str) -> AsyncGenerator[Run | Trouble | Deleted]:
    """The Run as it is, and then each change. Ends after Deleted, never by itself otherwise.

    Raises ClusterError only before the first Run; later outages are Trouble and waited out, refusals (Forbidden) are raised.
    """
    uid = ""
    pause = _FIRST_PAUSE
    while True:
        try:
            run = await target.run(name) if not uid else await _again(target, name, uid)
            if run is None:
                yield Deleted()
                return
            uid = run.metadata.uid
            yield run
            pause = _FIRST_PAUSE
            changes = target.cluster.watch(
                target.kinds.run, name, target.namespace, resource_version=run.metadata.resource_version, seconds=WATCH_SECONDS
            )
            async with aclosing(changes):
                async for change in changes:
                    if change.type == "DELETED":
                        yield Deleted()
                        return
                    yield Run.parse(change.body)
        except Gone:
            continue
        except ClusterUnavailable as error:
            if not uid:
                raise
            yield Trouble(str(error))
            await asyncio.sleep(error.after or pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


async def _again(target: Target, name: str, uid: str) -> Run | None:
    """The same Run once more; None when it is gone, or another one has its name."""
    try:
        run = await target.run(name)
    except NotFound:
        return None
    return run if run.metadata.uid == uid else None


class Display(Protocol):
    """Where progress is shown."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def happened(self, line: Line) -> None:
        """Something happened: it stays."""

    def present(self, run: Run, now: View) -> None:
        """How it stands, until the next call."""

    def trouble(self, message: str) -> None:
        """The API server does not answer."""


class Plain:
    """One line per change: for logs, files and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._troubled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def happened(self, line: Line) -> None:
        """Print it."""
        self._console.print(_line(line), soft_wrap=True)

    def present(self, run: Run, now: View) -> None:
        """Nothing: every change has its line."""
        self._troubled = False

    def trouble(self, message: str) -> None:
        """Print it once per outage."""
        if not self._troubled:
            self._console.print(_line(Line("no answer", message)), soft_wrap=True)
        self._troubled = True


class Terminal(Plain):
    """The same lines, and below them one that moves."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn(), console=console, transient=True
        )
        self._task = self._progress.add_task("")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def present(self, run: Run, now: View) -> None:
        """Show it on the moving line."""
        super().present(run, now)
        attempt = f" (attempt {run.status.attempt})" if run.status.attempt > 1 else ""
        message = f": {clean(now.message, 80)}" if now.message else ""
        self._progress.update(self._task, description=f"{run.metadata.full_name} {now.state}{attempt}{message}")

    def trouble(self, message: str) -> None:
        """Show it on the moving line too."""
        super().trouble(message)
        self._progress.update(self._task, description="the API server does not answer; trying again")


def display(console: Console) -> Display:
    """The display that suits where the console goes."""
    return Terminal(console) if console.is_terminal and not console.is_dumb_terminal else Plain(console)


def _line(line: Line) -> Text:
    time = (line.time or datetime.now(UTC)).astimezone().strftime("%H:%M:%S")
    text = Text.assemble(time, "  ", (f"{line.state:<12}", _COLOURS.get(line.state, "cyan")))
    if line.message:
        text.append("  " + clean(line.message))
    text.rstrip()
    return text


async def wait(target: Target, name: str, *, within: timedelta, console: Console) -> ExitCode:
    """Show the Run's progress until it ends; what it ended with as an exit code.

    Raises ClusterError when the Run cannot be looked at.
    """
    last: Run | None = None
    shown = display(console)
    try:
        async with asyncio.timeout(within.total_seconds()), aclosing(follow(target, name)) as looks:
            with shown:
                async for look in looks:
                    match look:
                        case Trouble(message):
                            shown.trouble(message)
                        case Deleted():
                            break
                        case run:
                            for line in news(last, run):
                                shown.happened(line)
                            last, now = run, view(run)
                            shown.present(run, now)
                            if now.ended:
                                break
    except TimeoutError:
        console.print(_still(target, name, last, within), soft_wrap=True, markup=False, highlight=False)
        return ExitCode.TIMEOUT
    if last is None or not view(last).ended:
        console.print(f"Run {target.namespace}/{name} was deleted before its end", soft_wrap=True, markup=False, highlight=False)
        return ExitCode.FAILED
    for text in clean_all(summary(last)):
        console.print(text, soft_wrap=True, markup=False, highlight=False)
    return ExitCode.OK if view(last).succeeded else ExitCode.FAILED


def _still(target: Target, name: str, last: Run | None, within: timedelta) -> str:
    after = length(within.total_seconds())
    if last is None:
        return f"nothing was seen of Run {target.namespace}/{name} within {after}"
    now = view(last)
    why = f": {clean(now.message)}" if now.message else ""
    return f"Run {last.metadata.full_name} is still {now.state} after {after}{why}\nIt goes on; kfp-operator runs cancel {name} stops it."
