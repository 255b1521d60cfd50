"""Says which runs may have changed, from a watch of their Workflows.

Only metadata is watched, and only of Workflows whose run has not ended at the server. An event never tells a state: Argo is ahead of the
server by some seconds, and of two Workflows of one run neither has the last word. It is a reason to look.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kfp_operator.errors import Permanent, Retryable
from kfp_operator.providers.kubeflow.clock import Clock
from kfp_operator.providers.kubeflow.workflows import ASK_AGAIN, RunWorkflows, run_of, stage

log = logging.getLogger(__name__)

LONGEST_PAUSE = 30.0
Stage = tuple[str, bool]


class Hints:
    """A watch that lasts as long as it is open, begun anew when it breaks."""

    def __init__(self, workflows: RunWorkflows, clock: Clock, wake: asyncio.Event) -> None:
        self._workflows = workflows
        self._clock = clock
        self._wake = wake
        self._task: asyncio.Task[None] | None = None
        self.watching = False
        """Whether changes are told: else they have to be asked for."""
        self.missed = False
        """The watch began anew since this was last cleared: there may have been changes in between."""
        self.changed: dict[str, Stage] = {}
        """Runs that may have changed, with the stage of their Workflow; whoever looks takes them out."""
        self._stages: dict[str, Stage] = {}

    def open(self) -> None:
        """Begin to watch, in a task."""
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="workflows")

    async def close(self) -> None:
        """Watch no longer."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self.watching = False

    def stage_of(self, run_id: str) -> Stage | None:
        """The stage of a run's Workflow as last seen; None: there is none whose end is not stored."""
        return self._stages.get(run_id)

    async def _watch(self) -> None:
        failures = 0
        while True:
            pause = ASK_AGAIN
            try:
                self._stages.clear()
                async for kind, workflow in self._workflows.changes():
                    if kind == "SYNCED":
                        self.watching = self.missed = True
                        failures = 0
                        self._wake.set()
                    else:
                        self._saw(kind, workflow)
                log.debug("the watch of Workflows ended")
                pause = min(2.0**failures, LONGEST_PAUSE)
            except Permanent as error:
                log.debug("Workflows cannot be watched: %s", error)  # RunWorkflows tells it; asked again one day
            except Retryable as error:
                log.debug("the watch of Workflows begins anew: %s", error)
                pause = min(2.0**failures, LONGEST_PAUSE)
            except Exception:
                log.exception("the watch of Workflows failed with an error that it should not raise; it begins anew")
            failures += 1
            self.watching = False
            self._wake.set()
            await self._clock.sleep(pause)

    def _saw(self, kind: str, workflow: Mapping[str, Any]) -> None:
        run_id = run_of(workflow)
        if not run_id:
            return
        found = stage(workflow)
        if kind == "DELETED":  # also what is not selected any more, because the server has stored its end
            self._stages.pop(run_id, None)
            found = (found[0], True)
        elif self._stages.get(run_id) == found:
            return
        else:
            self._stages[run_id] = found
        self.changed[run_id] = found
        self._wake.set()
