"""Rows as the API shows them: protobuf JSON, where what is empty or zero is left out."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tests.doubles.kfp_api.rows import UNFINISHED, Change, Experiment, Pipeline, RecurringRun, Run, TaskRow, Version

NEVER = "0001-01-01T00:00:00Z"
"""The end of a task that has not ended; a run that has not ended says 1970."""


def timestamp(moment: datetime) -> str:
    """RFC 3339, whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def present(**members: Any) -> dict[str, Any]:
    """The members that protobuf JSON prints."""
    return {name: value for name, value in members.items() if value not in ("", None, 0, [], {})}


def pipeline(row: Pipeline, *, split: bool, tags: bool) -> dict[str, Any]:
    """A Pipeline. `split`: the server has names beside display names; `tags`: it has tags."""
    return present(
        pipeline_id=row.id,
        display_name=row.display_name,
        name=row.name if split else "",
        description=row.description,
        created_at=timestamp(row.created),
        namespace=row.namespace,
        tags=row.tags if tags else {},
    )


def version(row: Version, *, split: bool, tags: bool) -> dict[str, Any]:
    """A PipelineVersion with its whole spec."""
    return present(
        pipeline_id=row.pipeline,
        pipeline_version_id=row.id,
        display_name=row.display_name,
        name=row.name if split else "",
        description=row.description,
        created_at=timestamp(row.created),
        pipeline_spec=row.spec,
        tags=row.tags if tags else {},
    )


def experiment(row: Experiment) -> dict[str, Any]:
    """An Experiment."""
    return present(
        experiment_id=row.id,
        display_name=row.name,
        description=row.description,
        created_at=timestamp(row.created),
        namespace=row.namespace,
        storage_state="ARCHIVED" if row.archived else "AVAILABLE",
        last_run_created_at=timestamp(row.last_run),
    )


def run(row: Run) -> dict[str, Any]:
    """A Run with its tasks, in lists too."""
    config = present(parameters=row.parameters, pipeline_root=row.pipeline_root)
    return present(
        experiment_id=row.experiment,
        run_id=row.id,
        display_name=row.name,
        storage_state="ARCHIVED" if row.archived else "AVAILABLE",
        description=row.description,
        pipeline_version_reference=present(pipeline_id=row.pipeline, pipeline_version_id=row.version),
        pipeline_spec=row.spec,
        runtime_config=config,
        service_account=row.service_account,
        created_at=timestamp(row.created),
        scheduled_at=timestamp(row.scheduled),
        finished_at=timestamp(row.finished),
        state=row.state,
        run_details=present(task_details=[task(row.id, t) for t in row.tasks.values()]),
        recurring_run_id=row.recurring_run,
        state_history=[change(c) for c in row.history],
    )


def task(run_id: str, row: TaskRow) -> dict[str, Any]:
    """A PipelineTaskDetail; inputs, outputs and errors are never filled in."""
    return present(
        run_id=run_id,
        task_id=row.id,
        display_name=row.name,
        create_time=timestamp(row.created),
        start_time=timestamp(row.started or UNFINISHED),
        end_time=timestamp(row.finished) if row.finished else NEVER,
        state=row.state,
        state_history=[change(c) for c in row.history if c.state],
    )


def change(entry: Change) -> dict[str, Any]:
    """An entry of a history."""
    return present(update_time=timestamp(entry.time), state=entry.state)


def recurring_run(row: RecurringRun) -> dict[str, Any]:
    """A RecurringRun."""
    given: Mapping[str, Any] = row.request
    return dict(given) | present(
        recurring_run_id=row.id,
        display_name=row.name,
        created_at=timestamp(row.created),
        updated_at=timestamp(row.created),
        status="ENABLED" if row.enabled else "DISABLED",
        experiment_id=row.experiment,
        namespace=row.namespace,
    )
