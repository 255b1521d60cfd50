"""Which step failed, and why: from the run's tasks, and from its Workflow where that may be seen.

The server keeps a row for each node of the Workflow: for a step "train" that are "train", the pod "train-driver" before it and the
pod "executor" inside it, and beside all steps the Workflow's own name, "root" and "root-driver". Rows have no order and no messages;
those are in the Workflow only. The step that is told is the innermost that failed: the ones around it fail because it did.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kfp_operator.api.states import RunState
from kfp_operator.providers.kubeflow.times import EPOCH, moment
from kfp_operator.providers.protocol import Task

ROOT = "root"
EXECUTOR = "executor"
DRIVER = "-driver"
LARGEST_NODES = 64 * 1024 * 1024
"""Bytes of nodes that Argo has compressed."""
MOST_TASKS = 500
_TASK_STATES: Mapping[str, RunState] = {
    "PENDING": RunState.QUEUED,
    "RUNNING": RunState.RUNNING,
    "SUCCEEDED": RunState.SUCCEEDED,
    "SKIPPED": RunState.SKIPPED,
    "FAILED": RunState.FAILED,
    "CANCELING": RunState.STOPPING,
    "CANCELED": RunState.STOPPED,
}
_FAILED_PHASES = frozenset({"Failed", "Error"})
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a run failed, as far as it is known."""

    task: str = ""
    message: str = ""


def diagnose(run: Mapping[str, Any], workflow: Mapping[str, Any] | None) -> Diagnosis:
    """The step that failed, and what is said about it. `workflow`: None if it may not be seen, or is gone."""
    task = failed_task(run)
    said = ""
    if workflow is not None:
        found, said = _failed_pod(workflow)
        task = found or task
        said = said or str((workflow.get("status") or {}).get("message") or "")
    message = f"step {task} failed" if task else "the run failed"
    return Diagnosis(task, f"{message}: {said}" if said else message)


def failed_task(run: Mapping[str, Any]) -> str:
    """The innermost step that failed, from the server's rows; "": none is known."""
    rows = _rows(run)
    names = {_name(row) for row in rows}
    failed = [row for row in rows if row.get("state") == "FAILED"]
    steps = [row for row in failed if _name(row) != ROOT and _name(row) + DRIVER in names]
    if not steps:
        drivers = [row for row in failed if _name(row).endswith(DRIVER) and _name(row) != ROOT + DRIVER]
        return _name(drivers[0]).removesuffix(DRIVER) if drivers else ""
    innermost = max(steps, key=lambda row: (moment(row.get("start_time")) or EPOCH, _name(row)))
    return _name(innermost)


def tasks_of(run: Mapping[str, Any]) -> Sequence[Task]:
    """The steps of the run, in the order in which they began."""
    rows = _rows(run)
    names = {_name(row) for row in rows}
    steps = [
        Task(_name(row), _TASK_STATES[str(row.get("state"))], moment(row.get("start_time")), moment(row.get("end_time")))
        for row in rows
        if _name(row) != ROOT and _name(row) + DRIVER in names and str(row.get("state")) in _TASK_STATES
    ]
    return tuple(sorted(steps, key=lambda task: (task.start_time or _NEVER, task.name))[:MOST_TASKS])


def _rows(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    details = run.get("run_details")
    rows = details.get("task_details") if isinstance(details, Mapping) else None
    return [row for row in rows or () if isinstance(row, Mapping)]


def _name(row: Mapping[str, Any]) -> str:
    return str(row.get("display_name") or "")


def _failed_pod(workflow: Mapping[str, Any]) -> tuple[str, str]:
    """The step of the pod that failed first, and what Argo says of it."""
    nodes = [
        node
        for node in _nodes(workflow.get("status") or {})
        if node.get("type") == "Pod"
        and node.get("phase") in _FAILED_PHASES
        and not str(node.get("displayName", "")).startswith(ROOT + DRIVER)
    ]
    if not nodes:
        return "", ""
    first = min(nodes, key=lambda node: (str(node.get("finishedAt") or "9"), str(node.get("name"))))
    path = [part.partition("(")[0] for part in str(first.get("name") or "").split(".")]
    inside = [part for part in path[1:] if part not in ("", ROOT, EXECUTOR)]
    return (inside[-1].removesuffix(DRIVER) if inside else ""), str(first.get("message") or "")


def _nodes(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Argo compresses the nodes of large Workflows."""
    nodes = status.get("nodes")
    compressed = status.get("compressedNodes")
    if not nodes and isinstance(compressed, str) and compressed:
        nodes = _decompressed(compressed)
    return [node for node in nodes.values() if isinstance(node, Mapping)] if isinstance(nodes, Mapping) else []


def _decompressed(text: str) -> object:
    """None for what cannot be read: the message is missing then, nothing else."""
    try:
        reader = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        return json.loads(reader.decompress(base64.b64decode(text), LARGEST_NODES))
    except (ValueError, zlib.error):
        return None
