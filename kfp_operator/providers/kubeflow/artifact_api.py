"""Reads what a run produced from the server's own API of tasks and artifacts, which replaces ML Metadata.

It comes with the releases after 2.17; whether a server has it is found out by asking.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kfp_operator.providers.kubeflow.api import Api
from kfp_operator.providers.kubeflow.errors import Failure, Refusal
from kfp_operator.providers.protocol import ComponentArtifact

_TYPES: Mapping[str, str] = {
    "Artifact": "system.Artifact",
    "Model": "system.Model",
    "Dataset": "system.Dataset",
    "HTML": "system.HTML",
    "Markdown": "system.Markdown",
    "Metric": "system.Metrics",
    "ClassificationMetric": "system.ClassificationMetrics",
    "SlicedClassificationMetric": "system.SlicedClassificationMetrics",
}
_ENDED_WELL = frozenset({"SUCCEEDED", "CACHED"})


async def available(api: Api) -> bool:
    """Whether the server has the API."""
    try:
        await api.artifact_tasks("none")
    except Refusal as error:
        return error.status not in (404, 405, 501)  # another refusal knows the path and does not like the question
    except Failure as error:
        if error.status == 404:
            return False
        raise
    return True


async def artifacts(api: Api, run_id: str) -> Sequence[ComponentArtifact] | None:
    """What the run's tasks produced; None: the server does not know the run."""
    run = await api.whole_run(run_id)
    return None if run is None else read(run)


def read(run: Mapping[str, Any]) -> list[ComponentArtifact]:
    """The output artifacts in a run's document, ordered by task, iteration and output."""
    found = []
    for task in sorted(_tasks(run), key=_place):
        outputs = task.get("outputs") or {}
        for output in outputs.get("artifacts") or ():
            key = str(output.get("artifact_key") or "")
            for index, artifact in enumerate(output.get("artifacts") or ()):
                kind = str(artifact.get("type") or "")
                found.append(
                    ComponentArtifact(
                        component=str(task.get("name") or ""),
                        name=key or str(artifact.get("name") or ""),
                        type=_TYPES.get(kind, kind),
                        uri=str(artifact.get("uri") or ""),
                        metadata=dict(artifact.get("metadata") or {}),
                        index=index,
                    )
                )
    return found


def _tasks(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of several tries of a task the last that succeeded."""
    best: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    for task in run.get("tasks") or ():
        if not isinstance(task, Mapping) or not (task.get("outputs") or {}).get("artifacts"):
            continue
        key = (str(task.get("parent_task_id") or ""), str(task.get("name") or ""), _iteration(task))
        before = best.get(key)
        if before is None or _rank(task) > _rank(before):
            best[key] = task
    return list(best.values())


def _rank(task: Mapping[str, Any]) -> tuple[bool, str]:
    return task.get("state") in _ENDED_WELL, str(task.get("create_time") or "")


def _place(task: Mapping[str, Any]) -> tuple[str, str, int]:
    return str(task.get("name") or ""), str(task.get("scope_path") or ""), _iteration(task)


def _iteration(task: Mapping[str, Any]) -> int:
    found = (task.get("type_attributes") or {}).get("iteration_index")
    try:
        return int(found) if found is not None else -1
    except (TypeError, ValueError):
        return -1
