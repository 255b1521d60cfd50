"""The server's inside: its rows, its Argo, and what all its handlers ask of them."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from aiohttp import web

from tests.doubles.kfp_api.argo import Argo
from tests.doubles.kfp_api.failures import Refusal, not_json
from tests.doubles.kfp_api.identity import Gate, Identities
from tests.doubles.kfp_api.listing import (
    EXPERIMENT_COLUMNS,
    KUBERNETES_OPERATIONS,
    OPERATIONS,
    PIPELINE_COLUMNS,
    RECURRING_RUN_COLUMNS,
    RUN_COLUMNS,
    VERSION_COLUMNS,
    Kind,
)
from tests.doubles.kfp_api.outcomes import Script
from tests.doubles.kfp_api.rows import UNFINISHED, Change, Experiment, Now, Rows, TaskRow, seconds
from tests.doubles.kfp_api.workflow import Workflow

STATES = {"": "", "Pending": "PENDING", "Running": "RUNNING", "Succeeded": "SUCCEEDED", "Failed": "FAILED", "Error": "FAILED"}
"""Run state by phase; none of an empty one."""


@dataclass(frozen=True)
class Options:
    """How the installation is set up.

    Args:
        version: Of the server: names beside display names and cascading deletion since 2.14, tags and updates since 2.17.
        namespace: Where it is installed, and a single-user one runs its Workflows.
        identities: Set: multi-user.
        kubernetes_store: Pipelines are custom resources (since 2.14).
        artifact_api: The API of the branch without MLMD.
        seconds: What a run takes, if nothing else is said.
        report_delay: Seconds from a change of a Workflow to the row.
        stop_delay: Seconds from a termination to the end.
        patience: Seconds that a termination takes when its Workflow is gone; the real server takes 13 to 15.

    """

    version: str = "2.17.0"
    namespace: str = "kubeflow"
    identities: Identities | None = None
    kubernetes_store: bool = False
    artifact_api: bool = False
    seconds: float = 0.2
    report_delay: float = 0.0
    stop_delay: float = 0.1
    patience: float = 0.5

    def since(self, major: int, minor: int) -> bool:
        """Whether the server is of this version or later."""
        found = tuple(int(part) for part in self.version.split(".")[:2])
        return found >= (major, minor)

    @property
    def split_names(self) -> bool:
        """Whether pipelines have a name beside their display name."""
        return self.since(2, 14)

    @property
    def tags(self) -> bool:
        """Whether pipelines and versions have tags, and can be updated."""
        return self.since(2, 17)


class WorkflowStore(Protocol):
    """Where Workflows are kept for others to see. ConnectionError: the cluster cannot be reached."""

    def attach(self, argo: Argo, before: Callable[[], Awaitable[None]]) -> None:
        """Follow these Workflows; `before` is awaited before they show anything new."""

    def shows(self, workflow: Workflow) -> bool:
        """Whether it is there as it is now."""

    async def create(self, workflow: Workflow) -> None:
        """Return when it is there."""

    async def stop(self, workflow: Workflow) -> None:
        """Set spec.activeDeadlineSeconds to 0; LookupError: it is gone."""

    async def delete(self, workflow: Workflow) -> None:
        """Remove it; fine when it is gone."""


class MemoryWorkflows:
    """Keeps them nowhere: `Argo.workflows` is all there is."""

    def attach(self, argo: Argo, before: Callable[[], Awaitable[None]]) -> None:
        """Nothing to do."""

    def shows(self, workflow: Workflow) -> bool:
        """It is."""
        return True

    async def create(self, workflow: Workflow) -> None:
        """It is there."""

    async def stop(self, workflow: Workflow) -> None:
        """It is there, or deleted."""
        if workflow.deleted:
            raise LookupError(workflow.name)

    async def delete(self, workflow: Workflow) -> None:
        """It is gone."""


class Service:
    """One server."""

    def __init__(self, options: Options, now: Now, workflows: WorkflowStore | None = None, *, first: int = 1) -> None:
        self.options = options
        self.gate = Gate(options.identities)
        self.rows = Rows(now)
        self.script = Script(seconds=options.seconds)
        self.workflows = workflows or MemoryWorkflows()
        delays = {"report_delay": options.report_delay, "stop_delay": options.stop_delay}
        self.argo = Argo(self.script, self.report, self.workflows.shows, **delays, first=first)
        self.wedged = 0
        """Uploads that never end."""
        self.database = True
        """Whether the server's database answers: its health does not depend on it."""
        self._now = now
        operations = KUBERNETES_OPERATIONS if options.kubernetes_store else OPERATIONS
        named = "name" if options.split_names else "display_name"
        hidden = () if options.split_names else ("name",)
        self.kinds = {
            "runs": Kind(RUN_COLUMNS, "run_id"),
            "experiments": Kind(EXPERIMENT_COLUMNS, "experiment_id"),
            "recurringruns": Kind(RECURRING_RUN_COLUMNS, "recurring_run_id"),
            "pipelines": Kind(_without(PIPELINE_COLUMNS, hidden), "pipeline_id", options.tags, named, operations),
            "versions": Kind(_without(VERSION_COLUMNS, hidden), "pipeline_version_id", options.tags, named, operations),
        }
        if not self.gate.multi_user:
            self.default_experiment()

    def catch_up(self) -> None:
        """Let Argo do what was due until now."""
        self.argo.advance(self._now())

    @property
    def exact_now(self) -> datetime:
        """The time with its fraction."""
        return self._now()

    def default_experiment(self) -> Experiment:
        """The experiment of runs that name none, in a single-user installation."""
        found = next((e for e in self.rows.experiments.values() if e.name == "Default"), None)
        if found is None:
            found = Experiment(
                self.rows.new_id(),
                "Default",
                self.rows.now(),
                description="All runs created without specifying an experiment will be grouped here.",
            )
            self.rows.experiments[found.id] = found
        return found

    def report(self, workflow: Workflow, at: datetime) -> bool:
        """What ReportWorkflow does: the state of the Workflow becomes that of the row, whichever Workflow of the run it is.

        False: there is no row, which may still come.
        """
        row = self.rows.runs.get(workflow.run_id)
        if row is None:
            return False
        state = STATES[workflow.phase]
        if workflow.stopping is not None and not workflow.done:
            state = "CANCELING"
        if state:
            row.enter(state, at)
        else:
            row.state = ""
        row.finished = seconds(workflow.finished) if workflow.finished else UNFINISHED
        for node in workflow.nodes():
            self._task(row.tasks, node, at)
        if workflow.done:
            self.argo.persist(workflow)
        return True

    def _task(self, tasks: dict[str, TaskRow], node: dict[str, Any], at: datetime) -> None:
        state = STATES.get(node["phase"], "")
        started, finished = (datetime.fromisoformat(node[key]) if node[key] else None for key in ("startedAt", "finishedAt"))
        known = tasks.get(node["id"])
        if known is None:
            created = started or seconds(at)
            tasks[node["id"]] = TaskRow(node["id"], node["displayName"], state, created, started, finished, [Change(state, seconds(at))])
            return
        if known.state != state:
            known.history.append(Change(state, seconds(at)))
        known.state, known.started, known.finished = state, started, finished

    def retry_reset(self, run_id: str, at: datetime) -> None:
        """The row of a run that goes on again."""
        row = self.rows.runs[run_id]
        row.retries += 1
        row.finished = UNFINISHED
        row.enter("RUNNING", at)


def _without(columns: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {key: column for key, column in columns.items() if key not in names}


async def body(request: web.Request, known: Sequence[str]) -> dict[str, Any]:
    """The JSON of a request, whose members must be known; Refusal."""
    text = await request.text()
    try:
        document = json.loads(text or "{}")
    except ValueError as error:
        raise not_json(f"syntax error (line 1:{getattr(error, 'pos', 0) + 1}): unexpected token") from None
    if not isinstance(document, dict):
        raise not_json("syntax error (line 1:1): unexpected token")
    for key in document:
        if key not in known:
            raise not_json(f'(line 1:{text.find(key)}): unknown field "{key}"')
    return document


def tags_of(value: Any) -> dict[str, str]:
    """Tags that the server takes; Refusal."""
    if not isinstance(value, dict):
        raise Refusal(3, "Invalid input error: tags must be a JSON object of string values", "invalid tags")
    if len(value) > 20:
        raise Refusal(3, f"Invalid input error: the number of tags {len(value)} exceeds the maximum of 20", "too many tags")
    for key, text in value.items():
        if not isinstance(text, str) or not key or "." in key or len(key) > 63 or len(text) > 63:
            raise Refusal(3, f"Invalid input error: tag {key!r} is invalid", "invalid tag")
    return dict(value)


def boolean(text: str) -> bool:
    """A query parameter as Go reads it; Refusal."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("", "0", "f", "F", "false", "FALSE", "False"):
        return False
    raise Refusal(3, f'type mismatch, parameter: cascade, error: strconv.ParseBool: parsing "{text}": invalid syntax')
