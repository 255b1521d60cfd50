"""The Argo Workflows behind runs, where the operator may see them.

They are looked at for three things: whether a submission without an answer started something, why a run failed, and, by the watch, that
something changed. What is true of a run is only ever what the server says.

Whether the operator's own cluster is the one that has them is a matter of configuration: from another one, "there is no such Workflow"
would mean nothing.
"""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from kfp_operator.errors import Permanent
from kfp_operator.providers.kubeflow.clock import Clock
from kfp_operator.providers.kubeflow.parameters import KubeflowParameters
from kfp_operator.providers.protocol import Workflows

log = logging.getLogger(__name__)

RUN_ID = "pipeline/runid"
PHASE = "workflows.argoproj.io/phase"
PERSISTED = "pipeline/persistedFinalState"
"""Set to "true" once the server has stored the run's end."""
UNFINISHED = f"{RUN_ID},{PERSISTED}!=true"
"""Selects Workflows of runs whose end is not stored; of the others a cluster keeps thousands."""
ASK_AGAIN = 300.0
"""Seconds after which it is asked again whether Workflows may be seen."""


class RunWorkflows:
    """The Workflows of one Provider's runs."""

    def __init__(self, port: Workflows | None, parameters: KubeflowParameters, clock: Clock) -> None:
        here = parameters.service is not None or parameters.watch == "Workflows"
        self._port = port if here else None
        self.namespace = parameters.workflow_namespace
        self._clock = clock
        self._refused_at = float("-inf")
        self.refusal = "" if self._port is not None else _why_not(port, parameters)
        """Why they cannot be seen, for people; "": they can, as far as is known."""

    @property
    def visible(self) -> bool:
        """Whether it is worth asking for them now."""
        return self._port is not None and self._clock.monotonic() - self._refused_at >= ASK_AGAIN

    async def of(self, run_id: str) -> Sequence[Mapping[str, Any]] | None:
        """The Workflows of a run, whole; None: they may not be seen. Retryable when nobody knows now."""
        if self._port is None or not self.visible:
            return None
        try:
            found = await self._port.list(self.namespace, f"{RUN_ID}={run_id}")
        except Permanent as error:
            self._refuse(error)
            return None
        self.refusal = ""
        return found

    async def changes(self) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Events of Workflows whose run has not ended: type and metadata. Permanent when they may not be watched."""
        if self._port is None:
            raise Permanent(self.refusal, reason="WorkflowsForbidden")
        try:
            async for event in self._port.watch(self.namespace, UNFINISHED):
                self.refusal = ""
                yield event
        except Permanent as error:
            self._refuse(error)
            raise

    async def probe(self) -> None:
        """Permanent when they may not be seen."""
        if self._port is None:
            raise Permanent(self.refusal, reason="WorkflowsForbidden")
        try:
            await self._port.list(self.namespace, f"{RUN_ID}=none")
        except Permanent as error:
            self._refuse(error)
            raise
        self.refusal = ""

    def _refuse(self, error: Permanent) -> None:
        if not self.refusal:
            log.info("Workflows in namespace %s are not looked at: %s", self.namespace, error)
        self.refusal = str(error)
        self._refused_at = self._clock.monotonic()


def run_of(workflow: Mapping[str, Any]) -> str:
    """The run that a Workflow executes."""
    return str(_labels(workflow).get(RUN_ID) or "")


def stage(workflow: Mapping[str, Any]) -> tuple[str, bool]:
    """How far it is: Argo's phase, and whether the server has stored its end."""
    labels = _labels(workflow)
    return str(labels.get(PHASE) or ""), labels.get(PERSISTED) == "true"


def name_of(workflow: Mapping[str, Any]) -> str:
    """Its name, for people."""
    return str((workflow.get("metadata") or {}).get("name") or "")


def _labels(workflow: Mapping[str, Any]) -> Mapping[str, Any]:
    found = (workflow.get("metadata") or {}).get("labels")
    return found if isinstance(found, Mapping) else {}


def _why_not(port: Workflows | None, parameters: KubeflowParameters) -> str:
    if port is None:
        return "this process has no access to a cluster"
    return (
        f"spec.parameters.endpoint {parameters.endpoint} is no Service of this cluster; "
        "if Kubeflow Pipelines runs in it all the same, set spec.parameters.watch: Workflows"
    )
