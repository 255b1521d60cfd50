"""From the server's document of a run to what the operator is told: with what this process knows of cancels, and why it failed.

A run that was terminated ends as FAILED like any other. Whether a stop was accepted or came too late is remembered for each attempt;
what a process before this one asked for is decided by whoever wanted the stop (`RunUpdate.perhaps_stopped`).
"""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kfp_operator.api.states import RunState
from kfp_operator.errors import Retryable
from kfp_operator.providers.kubeflow.api import Document
from kfp_operator.providers.kubeflow.failures import Diagnosis, diagnose
from kfp_operator.providers.kubeflow.naming import Mark
from kfp_operator.providers.kubeflow.parameters import KubeflowParameters
from kfp_operator.providers.kubeflow.states import STATES, Ending, attempts, updates
from kfp_operator.providers.kubeflow.workflows import RunWorkflows
from kfp_operator.providers.protocol import RunUpdate

log = logging.getLogger(__name__)

REMEMBERED = 5_000


class Reader:
    """Reads the runs of one provider."""

    def __init__(self, parameters: KubeflowParameters, workflows: RunWorkflows) -> None:
        self._parameters = parameters
        self._workflows = workflows
        self._stops: OrderedDict[tuple[str, int], bool] = OrderedDict()
        """(run, attempt) -> whether the server took the stop."""
        self._diagnoses: OrderedDict[tuple[str, int], Diagnosis] = OrderedDict()

    def stopped(self, run: Mapping[str, Any], *, accepted: bool) -> None:
        """The server took our request to stop the present attempt of the run, or said that it had ended. An acceptance stands."""
        key = (str(run.get("run_id") or ""), len(attempts(run)))
        self._stops[key] = accepted or self._stops.get(key, False)
        if len(self._stops) > REMEMBERED:
            self._stops.popitem(last=False)

    async def read(self, run: Document) -> RunUpdate:
        """The present attempt, with those before it."""
        *earlier, present = await self.read_all(run)
        return replace(present, earlier=tuple(earlier))

    async def read_all(self, run: Document) -> list[RunUpdate]:
        """All attempts, oldest first."""
        run_id, number = str(run.get("run_id") or ""), len(attempts(run))
        accepted = self._stops.get((run_id, number))
        ending = Ending(stop_accepted=accepted is True, stop_refused=accepted is False)
        if STATES.get(str(run.get("state") or "")) is RunState.FAILED:
            ending = replace(ending, diagnosis=await self._diagnose(run, run_id, number))
        return updates(run, url=self._parameters.run_url(run_id), ending=ending)

    async def _diagnose(self, run: Document, run_id: str, number: int) -> Diagnosis:
        key = (run_id, number)
        found = self._diagnoses.get(key)
        if found is None:
            try:
                workflows = await self._workflows.of(run_id) or ()
            except Retryable as error:
                log.debug("the Workflow of run %s cannot be seen now: %s", run_id, error)
                workflows = ()
            found = self._diagnoses[key] = diagnose(run, workflows[0] if workflows else None)
            if len(self._diagnoses) > REMEMBERED:
                self._diagnoses.popitem(last=False)
        return found


def mark_of_run(run: Mapping[str, Any]) -> Mark | None:
    """What the run's description says of its Run; None: somebody else started it, perhaps as a clone of one of ours."""
    mark = Mark.parse(str(run.get("description") or ""))
    return mark if mark is not None and mark.run_id == run.get("run_id") else None
