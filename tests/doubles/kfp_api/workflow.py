"""One Workflow of the simulated Argo: its phases, and the document that Kubernetes would hold."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.doubles.kfp_api.outcomes import Outcome
from tests.doubles.kfp_api.shapes import timestamp

RUN_ID = "pipeline/runid"
PERSISTED = "pipeline/persistedFinalState"
PHASE = "workflows.argoproj.io/phase"
COMPLETED = "workflows.argoproj.io/completed"
RUN_NAME = "pipelines.kubeflow.org/run_name"
FINAL_PHASES = frozenset({"Succeeded", "Failed", "Error"})
STOPPED = "Step exceeded its deadline"


@dataclass
class Step:
    """A task of the pipeline in one attempt."""

    name: str
    attempt: int = 1
    phase: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    message: str = ""


@dataclass
class Workflow:
    """One execution."""

    name: str
    namespace: str
    uid: str
    run_id: str
    run_name: str
    prefix: str
    created: datetime
    outcome: Outcome
    steps: list[Step]
    service_account: str
    phase: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    message: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    owner: dict[str, Any] | None = None
    stopping: datetime | None = None
    """When spec.activeDeadlineSeconds was set to 0."""
    persisted: bool = False
    deleted: bool = False
    attempt: int = 1
    version: int = 1
    released: bool = False
    """Somebody let it start, of those that move by hand."""

    @property
    def done(self) -> bool:
        """Whether its phase is final."""
        return self.phase in FINAL_PHASES

    def document(self) -> dict[str, Any]:
        """What the API server of Kubernetes shows, `status` of one that was just made left out as Argo has not seen it."""
        labels = {RUN_ID: self.run_id} | self.labels
        if self.phase:
            labels[PHASE] = self.phase
        if self.done:
            labels[COMPLETED] = "true"
        if self.persisted:
            labels[PERSISTED] = "true"
        metadata: dict[str, Any] = {
            "name": self.name,
            "generateName": f"{self.prefix}-",
            "namespace": self.namespace,
            "uid": self.uid,
            "resourceVersion": str(self.version),
            "creationTimestamp": timestamp(self.created),
            "labels": labels,
            "annotations": {RUN_NAME: self.run_name},
        }
        if self.owner:
            metadata["ownerReferences"] = [self.owner]
        spec: dict[str, Any] = {"entrypoint": "entrypoint", "serviceAccountName": self.service_account, "arguments": {}}
        if self.stopping is not None:
            spec["activeDeadlineSeconds"] = 0
        document: dict[str, Any] = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata, "spec": spec}
        if self.phase:
            document["status"] = self._status()
        return document

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes of `status.nodes`: Argo's own, and driver, DAG and executor of each step."""
        if self.started is None:
            return []
        made = [self._node(self.name, self.name, "DAG", self.phase, self.started, self.finished, self.message)]
        made.append(self._node(f"{self.name}.root-driver", "root-driver", "Pod", "Succeeded", self.started, self.started))
        made.append(self._node(f"{self.name}.root", "root", "DAG", self.phase, self.started, self.finished))
        for step in self.steps:
            if not step.phase:
                continue
            inside = f"{self.name}.root.{step.name}"
            if step.phase == "Omitted":
                made.append(
                    self._node(inside, step.name, "Skipped", "Omitted", self.started, self.finished, "omitted: depends condition not met")
                )
                continue
            made.append(self._node(f"{inside}-driver", f"{step.name}-driver", "Pod", "Succeeded", step.started, step.started))
            made.append(self._node(inside, step.name, "DAG", step.phase, step.started, step.finished))
            made.append(self._node(f"{inside}.executor", "executor", "Pod", step.phase, step.started, step.finished, step.message))
        return made

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = {"phase": self.phase, "startedAt": None, "finishedAt": None, "nodes": {n["id"]: n for n in self.nodes()}}
        if self.started is not None:
            status["startedAt"] = timestamp(self.started)
        if self.finished is not None:
            status["finishedAt"] = timestamp(self.finished)
        if self.message:
            status["message"] = self.message
        return status

    def _node(
        self, name: str, display: str, type_: str, phase: str, started: datetime | None, finished: datetime | None, message: str = ""
    ) -> dict[str, Any]:
        identity = self.name if name == self.name else f"{self.name}-{zlib.crc32(name.encode())}"
        node: dict[str, Any] = {"id": identity, "name": name, "displayName": display, "type": type_, "phase": phase}
        node |= {"startedAt": timestamp(started) if started else None, "finishedAt": timestamp(finished) if finished else None}
        if message:
            node["message"] = message
        return node


def steps_of(names: Sequence[str]) -> list[Step]:
    """Steps that have not begun."""
    return [Step(name) for name in names]
