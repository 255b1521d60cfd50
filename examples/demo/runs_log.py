"""All Runs of a namespace, as they come, change and go: one line per change, and everything that was ever seen of them."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.text import Text

from examples.demo import DemoError
from examples.demo.text import Page
from kfp_operator.api.names import DEFAULT_GROUP, Names
from kfp_operator.api.run import Run
from kfp_operator.cli.progress import clean, news, view
from kfp_operator.cli.target import connect
from kfp_operator.errors import ClusterUnavailable

_EVERY = 0.3
_STYLES = {"succeeded": "green", "failed": "red", "stopped": "yellow", "running": "cyan", "created": "bold", "deleted": "dim"}
_NAMES = Names()
_SHOWN = frozenset({"running", "succeeded", "failed", "stopped"})


class RunsLog:
    """What happens to the Runs of a namespace while it is told to look."""

    def __init__(self, kubeconfig: Path, namespace: str, page: Page) -> None:
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._page = page
        self.seen: dict[str, Run] = {}
        """Every Run that ever was, by name, as last seen."""
        self.present: Mapping[str, Run] = {}
        """Those that exist."""

    def until(self, done: Callable[[], bool], within: float, what: str) -> None:
        """Show what happens until `done`.

        Raises:
            DemoError: `what` was not so after `within` seconds.

        """
        if not asyncio.run(self._look(done, within)):
            states = ", ".join(f"{name} {view(run).state}" for name, run in self.present.items()) or "none"
            raise DemoError(f"{what}: not within {within:g} s; Runs: {states}")

    def watch_for(self, seconds: float) -> None:
        """Show what happens for so long."""
        asyncio.run(self._look(lambda: False, seconds))

    def of(self, configuration: str) -> list[Run]:
        """All Runs that a RunConfiguration made, oldest first."""
        made = [run for run in self.seen.values() if any(o.name == configuration for o in run.metadata.owner_references)]
        return sorted(made, key=lambda run: (run.metadata.creation_timestamp or datetime.min.replace(tzinfo=UTC), run.metadata.name))

    async def _look(self, done: Callable[[], bool], within: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        async with connect(str(self._kubeconfig), None, namespace=self._namespace, group=DEFAULT_GROUP) as target:
            while True:
                try:
                    found = [Run.parse(item) async for item in target.cluster.list(target.kinds.run, self._namespace)]
                except ClusterUnavailable as error:
                    self._line("", "no answer", str(error))
                else:
                    self._compare({run.metadata.name: run for run in found})
                if done():
                    return True
                if loop.time() >= until:
                    return False
                await asyncio.sleep(_EVERY)

    def _compare(self, found: Mapping[str, Run]) -> None:
        for name, run in found.items():
            before = self.present.get(name)
            if before is None:
                self._line(name, "created", _why(run))
            for line in news(before, run):
                if line.state in _SHOWN:
                    self._line(name, line.state, line.message, line.time)
            self.seen[name] = run
        for name in self.present:
            if name not in found:
                self._line(name, "deleted", "")
        self.present = found

    def _line(self, name: str, state: str, message: str, time: datetime | None = None) -> None:
        at = (time or datetime.now(UTC)).astimezone().strftime("%H:%M:%S")
        text = Text.assemble(f"   {at}  {name:<30} ", (f"{state:<10}", _STYLES.get(state, "")), f"  {clean(message)}")
        text.rstrip()
        self._page.console.print(text)


def cause(run: Run) -> tuple[str, str]:
    """Type and source of the trigger that made the Run, from its labels."""
    labels = run.metadata.labels
    return labels.get(_NAMES.trigger_type, ""), labels.get(_NAMES.trigger_source, "")


def _why(run: Run) -> str:
    kind, source = cause(run)
    return f"by {kind} {source}" if kind else ""
