"""What KFP's driver and launcher write to ML Metadata while a Workflow goes on, before its end can be seen.

The driver of a step creates its execution, the launcher publishes it with what the step wrote; a step that is killed publishes nothing.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import aiohttp

from tests.doubles.kfp_api.argo import Argo
from tests.doubles.kfp_api.outcomes import Artifact
from tests.doubles.kfp_api.workflow import STOPPED, Step, Workflow
from tests.doubles.mlmd.recording import ROOT, WrittenArtifact, WrittenExecution, WrittenRun, root

PATIENCE = 2.0
"""Seconds that one write may take."""
REST = 1.0
"""Seconds without another try after one that failed."""
STATES = {"Running": "RUNNING", "Succeeded": "COMPLETE", "Failed": "FAILED", "Error": "FAILED"}


def location(workflow: Workflow, artifact: Artifact) -> str:
    """Where an artifact is, if the outcome does not say."""
    return artifact.uri or f"minio://mlpipeline/v2/artifacts/{workflow.prefix}/{workflow.run_id}/{artifact.task}/salt/{artifact.name}"


class Launcher:
    """Records the steps of an `Argo`.

    Args:
        argo: Whose Workflows.
        recorder: URL of the recorder (`Mlmd.recorder`).
        clock: Seconds, of the event loop.

    """

    def __init__(self, argo: Argo, recorder: str, clock: Callable[[], float]) -> None:
        self._recorder = recorder
        self._clock = clock
        self._resting_until = 0.0
        self._written: dict[str, str] = {}
        """State by key of each execution that was handed in."""
        self._waiting: deque[dict[str, Any]] = deque()
        self._lock = asyncio.Lock()
        argo.listeners.append(self._told)

    async def flush(self) -> None:
        """Return when all that happened is recorded, or cannot be now."""
        async with self._lock:
            if not self._waiting or self._clock() < self._resting_until:
                return
            timeout = aiohttp.ClientTimeout(total=PATIENCE)
            try:
                async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
                    while self._waiting:
                        async with session.post(self._recorder, json=self._waiting[0]):
                            self._waiting.popleft()
            except (aiohttp.ClientError, TimeoutError):
                self._resting_until = self._clock() + REST

    def _told(self, what: str, workflow: Workflow) -> None:
        if what == "DELETED" or not any(step.started for step in workflow.steps):
            return
        executions = [self._root(workflow), *(self._step(workflow, step) for step in workflow.steps)]
        news = tuple(execution for execution in executions if execution is not None)
        if news:
            run = WrittenRun(workflow.run_id, workflow.prefix, news, workflow.namespace)
            self._waiting.append(asdict(run))

    def _root(self, workflow: Workflow) -> WrittenExecution | None:
        state = "COMPLETE" if workflow.phase == "Succeeded" else "RUNNING"
        return root(state) if self._is_news(f"{workflow.run_id}/{ROOT}", state) else None

    def _step(self, workflow: Workflow, step: Step) -> WrittenExecution | None:
        if step.phase not in STATES or step.message == STOPPED:
            return None
        state, key = STATES[step.phase], f"{workflow.uid}/{step.name}/{step.attempt}"
        if not self._is_news(key, state):
            return None
        outputs = tuple(
            WrittenArtifact(a.name, a.type, location(workflow, a), a.metadata)
            for a in workflow.outcome.artifacts
            if a.task == step.name and state == "COMPLETE"
        )
        return WrittenExecution(step.name, outputs, key=key, state=state)

    def _is_news(self, key: str, state: str) -> bool:
        if self._written.get(key) == state:
            return False
        self._written[key] = state
        return True
