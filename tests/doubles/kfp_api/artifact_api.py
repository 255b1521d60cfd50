"""The server's own API of artifacts, of the branch that has no ML Metadata: tasks in the run, and links between tasks and artifacts.

There are no recordings of it; it follows its protobuf definitions. Where it is on, `run_details` is empty.
"""

from typing import Any

from aiohttp import web

from tests.doubles.kfp_api import shapes
from tests.doubles.kfp_api.failures import answer, not_found
from tests.doubles.kfp_api.launcher import location
from tests.doubles.kfp_api.outcomes import Artifact
from tests.doubles.kfp_api.rows import Run
from tests.doubles.kfp_api.service import Service
from tests.doubles.kfp_api.workflow import Step, Workflow

STATES = {"Running": "RUNNING", "Succeeded": "SUCCEEDED", "Failed": "FAILED", "Omitted": "SKIPPED"}
TYPES = frozenset({"Artifact", "Model", "Dataset", "HTML", "Markdown", "Metric", "ClassificationMetric", "SlicedClassificationMetric"})


class ArtifactApi:
    """The handlers of /artifacts and /artifact_tasks, and what they add to a run."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[web.RouteDef]:
        """All paths; none where the server has ML Metadata."""
        if not self._service.options.artifact_api:
            return []
        return [web.get("/artifact_tasks", self.links), web.get("/artifacts/{id}", self.get)]

    async def links(self, request: web.Request) -> web.Response:
        """Which task wrote which artifact, of the runs that are named."""
        found = []
        for run_id in request.query.getall("run_ids", []):
            row = self._service.rows.runs.get(run_id)
            if row is not None:
                self._service.gate.check(request, row.namespace, "artifacts", "list")
            for workflow, step, artifact in self._written(run_id):
                task = _task_id(workflow, step)
                found.append(
                    {
                        "id": f"link-{task}-{artifact.name}",
                        "artifact_id": _artifact_id(task, artifact),
                        "run_id": run_id,
                        "task_id": task,
                        "type": "OUTPUT",
                        "producer": {"task_name": step.name},
                        "key": artifact.name,
                    }
                )
        return answer(shapes.present(artifact_tasks=found, total_size=len(found)))

    async def get(self, request: web.Request) -> web.Response:
        """One artifact by its id."""
        wanted = request.match_info["id"]
        for workflow in self._service.argo.workflows.values():
            for _, step, artifact in self._written(workflow.run_id):
                if _artifact_id(_task_id(workflow, step), artifact) == wanted:
                    return answer(self._artifact(workflow, step, artifact))
        raise not_found("Artifact", wanted).within("Failed to get artifact")

    def run(self, row: Run, view: str) -> dict[str, Any]:
        """The run as such a server shows it; `view` FULL: with its tasks."""
        shown = shapes.run(row)
        shown.pop("run_details", None)
        if view == "FULL":
            shown["tasks"] = [self._task(w, s) for w in self._service.argo.of(row.id) for s in w.steps if s.phase]
        return shown

    def _task(self, workflow: Workflow, step: Step) -> dict[str, Any]:
        written = [a for w, s, a in self._written(workflow.run_id) if s is step and w is workflow]
        outputs = [
            {
                "artifacts": [self._artifact(workflow, step, artifact)],
                "artifact_key": artifact.name,
                "type": "OUTPUT",
                "producer": {"task_name": step.name},
            }
            for artifact in written
        ]
        return shapes.present(
            name=step.name,
            display_name=step.name,
            task_id=_task_id(workflow, step),
            run_id=workflow.run_id,
            type="RUNTIME",
            state=STATES[step.phase],
            scope_path=["root", step.name],
            start_time=shapes.timestamp(step.started) if step.started else "",
            end_time=shapes.timestamp(step.finished) if step.finished else "",
            outputs=shapes.present(artifacts=outputs),
        )

    def _artifact(self, workflow: Workflow, step: Step, artifact: Artifact) -> dict[str, Any]:
        kind = artifact.type.rpartition(".")[2]
        return shapes.present(
            artifact_id=_artifact_id(_task_id(workflow, step), artifact),
            name=artifact.name,
            type=kind if kind in TYPES else "Artifact",
            uri=location(workflow, artifact),
            metadata=dict(artifact.metadata),
            created_at=shapes.timestamp(step.finished or workflow.created),
            namespace=workflow.namespace,
        )

    def _written(self, run_id: str) -> list[tuple[Workflow, Step, Artifact]]:
        return [
            (workflow, step, artifact)
            for workflow in self._service.argo.of(run_id)
            for step in workflow.steps
            if step.phase == "Succeeded"
            for artifact in workflow.outcome.artifacts
            if artifact.task == step.name
        ]


def _task_id(workflow: Workflow, step: Step) -> str:
    return f"{workflow.name}-{step.name}-{step.attempt}"


def _artifact_id(task: str, artifact: Artifact) -> str:
    return f"{task}-{artifact.name}"
