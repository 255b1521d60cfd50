"""What the tests of type local share: submissions, a recorder of updates, a look at what processes are left."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from kfp_operator.api.states import RunState
from kfp_operator.providers.local import LocalProvider
from kfp_operator.providers.protocol import PipelineVersion, RunUpdate, Submission, submission_id
from tests.waiting import eventually_async

Pipelines = Mapping[str, Mapping[str, Any]]
DEADLINE = 30.0


def submission(pipelines: Pipelines, pipeline: str, number: int = 1, **parameters: Any) -> Submission:
    """The first attempt of Run number `number`."""
    version = PipelineVersion("team", pipeline, "abc123", pipelines[pipeline])
    return Submission(submission_id(f"uid-{number}", 1), "team", f"run-{number}", f"uid-{number}", 1, version, parameters)


class Recorder:
    """All updates of a watch, by run."""

    def __init__(self) -> None:
        self.seen: dict[str, list[RunUpdate]] = {}

    def last(self, run: str) -> RunUpdate | None:
        """The newest update of a run."""
        return self.seen[run][-1] if run in self.seen else None

    def states(self, run: str) -> list[str]:
        """The states that the watch showed, each once, in order."""
        return list(dict.fromkeys(update.state.value for update in self.seen.get(run, [])))

    async def until(self, run: str, *states: RunState) -> RunUpdate:
        """The first update that shows one of the states; default: any final one."""

        def found() -> RunUpdate | None:
            return next((update for update in self.seen.get(run, []) if (update.state in states if states else update.state.final)), None)

        return await eventually_async(found, DEADLINE, f"run {run} is {states or 'over'}")

    async def until_step(self, run: str, step: str, state: RunState = RunState.RUNNING) -> RunUpdate:
        """The first update that shows the step in the state."""

        def found() -> RunUpdate | None:
            return next(
                (update for update in self.seen.get(run, []) if any(task.name == step and task.state is state for task in update.tasks)),
                None,
            )

        return await eventually_async(found, DEADLINE, f"step {step} of run {run} is {state}")


@contextlib.asynccontextmanager
async def watching(provider: LocalProvider) -> AsyncIterator[Recorder]:
    """Record the provider's watch meanwhile."""
    recorder = Recorder()

    async def record() -> None:
        async for update in provider.watch_runs():
            recorder.seen.setdefault(update.submission_id, []).append(update)

    task = asyncio.create_task(record())
    try:
        yield recorder
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def marked(folder: Path) -> list[int]:
    """Pids of living processes that belong to the run in `folder`, by its mark in their environment."""
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            if (
                int(path.name) != os.getpid()
                and state != "Z"
                and f"KFP_RUN_FOLDER={folder}".encode() in (path / "environ").read_bytes().split(b"\0")
            ):
                found.append(int(path.name))
    return found
