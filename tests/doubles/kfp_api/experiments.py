"""Experiments, and recurring runs as far as they start runs that nobody else did."""

from typing import Any

from aiohttp import web

from tests.doubles.kfp_api import shapes
from tests.doubles.kfp_api.failures import Refusal, answer, invalid, not_found
from tests.doubles.kfp_api.listing import page
from tests.doubles.kfp_api.rows import Experiment, RecurringRun, Run
from tests.doubles.kfp_api.runs import Runs
from tests.doubles.kfp_api.service import Service, body

EXPERIMENT_FIELDS = ("experiment_id", "display_name", "description", "created_at", "namespace", "storage_state", "last_run_created_at")
RECURRING_FIELDS = (
    "recurring_run_id",
    "display_name",
    "description",
    "pipeline_version_id",
    "pipeline_spec",
    "pipeline_version_reference",
    "runtime_config",
    "service_account",
    "max_concurrency",
    "trigger",
    "mode",
    "created_at",
    "updated_at",
    "status",
    "error",
    "no_catchup",
    "namespace",
    "experiment_id",
)
LARGEST_CONCURRENCY = 10


class Experiments:
    """The handlers of /experiments."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[web.RouteDef]:
        """All paths."""
        one = "/experiments/{id:[^:/]+}"
        return [
            web.post("/experiments", self.create),
            web.get("/experiments", self.list),
            web.get(one, self.get),
            web.delete(one, self.delete),
            web.post(one + ":archive", self.archive),
            web.post(one + ":unarchive", self.unarchive),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """A grouping; its name is unique in the namespace."""
        given, rows, multi = await body(request, EXPERIMENT_FIELDS), self._service.rows, self._service.gate.multi_user
        name, namespace = str(given.get("display_name") or ""), str(given.get("namespace") or "") if multi else ""
        if not name:
            raise invalid("Experiment name cannot be empty").within("Failed to create a experiment")
        if multi and not namespace:
            raise invalid("Experiment namespace cannot be empty in multi-user mode").within("Failed to create a experiment")
        self._service.gate.check(request, namespace, "experiments", "create")
        if any((e.name, e.namespace) == (name, namespace) for e in rows.experiments.values()):
            told = f"The name {name} already exists. Please specify a new name"
            raise Refusal(6, f"Failed to create a experiment: Already exist error: Failed to create a new experiment. {told}", told)
        row = Experiment(rows.new_id(), name, rows.now(), namespace, str(given.get("description") or ""))
        rows.experiments[row.id] = row
        return answer(shapes.experiment(row))

    async def list(self, request: web.Request) -> web.Response:
        """One page."""
        namespace = request.query.get("namespace", "")
        rows = list(self._service.rows.experiments.values())
        if self._service.gate.multi_user:
            if not namespace:
                raise invalid("In multi-user mode, ListExperiment must filter by namespace").within("Failed to list experiments")
            self._service.gate.check(request, namespace, "experiments", "list")
            rows = [e for e in rows if e.namespace == namespace]
        found = page(rows, self._service.kinds["experiments"], request.query)
        listed = [shapes.experiment(row) for row in found.rows]
        return answer(shapes.present(experiments=listed, total_size=found.total, next_page_token=found.next))

    async def get(self, request: web.Request) -> web.Response:
        """One by its id."""
        return answer(shapes.experiment(self._row(request, "get")))

    async def delete(self, request: web.Request) -> web.Response:
        """Remove it; its runs stay."""
        row = self._row(request, "delete")
        del self._service.rows.experiments[row.id]
        return answer({})

    async def archive(self, request: web.Request) -> web.Response:
        """Put it away with its runs, and stop its schedules."""
        row = self._row(request, "archive")
        row.archived = True
        for run in self._service.rows.runs.values():
            run.archived |= run.experiment == row.id
        for schedule in self._service.rows.recurring_runs.values():
            schedule.enabled &= schedule.experiment != row.id
        return answer({})

    async def unarchive(self, request: web.Request) -> web.Response:
        """Take it back; its runs stay put away."""
        self._row(request, "unarchive").archived = False
        return answer({})

    def _row(self, request: web.Request, verb: str) -> Experiment:
        row = self._service.rows.experiments.get(request.match_info["id"])
        if row is None:
            raise not_found("Experiment", request.match_info["id"]).within(f"Failed to {verb} an experiment")
        self._service.gate.check(request, row.namespace, "experiments", verb)
        return row


class RecurringRuns:
    """The handlers of /recurringruns, and the tick that nothing but a test makes."""

    def __init__(self, service: Service, runs: Runs) -> None:
        self._service = service
        self._runs = runs

    def routes(self) -> list[web.RouteDef]:
        """All paths."""
        one = "/recurringruns/{id:[^:/]+}"
        return [
            web.post("/recurringruns", self.create),
            web.get("/recurringruns", self.list),
            web.get(one, self.get),
            web.delete(one, self.delete),
            web.post(one + ":enable", self.enable),
            web.post(one + ":disable", self.disable),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """A schedule; unless `mode` says ENABLE it is disabled."""
        given, rows = await body(request, RECURRING_FIELDS), self._service.rows
        concurrency = int(given.get("max_concurrency") or 0)
        if not 1 <= concurrency <= LARGEST_CONCURRENCY:
            raise invalid(f"The max concurrency must be between 1 and {LARGEST_CONCURRENCY}, was {concurrency}").within(
                "Failed to create a recurring run"
            )
        experiment = rows.experiments.get(str(given.get("experiment_id") or "")) or self._service.default_experiment()
        self._service.gate.check(request, experiment.namespace, "jobs", "create")
        row = RecurringRun(
            rows.new_id(), str(given["display_name"]), rows.now(), experiment.id, experiment.namespace, given, given.get("mode") == "ENABLE"
        )
        rows.recurring_runs[row.id] = row
        return answer(shapes.recurring_run(row))

    async def list(self, request: web.Request) -> web.Response:
        """One page, under a key of another spelling."""
        found = page(list(self._service.rows.recurring_runs.values()), self._service.kinds["recurringruns"], request.query)
        listed = [shapes.recurring_run(row) for row in found.rows]
        return answer(shapes.present(recurringRuns=listed, total_size=found.total, next_page_token=found.next))

    async def get(self, request: web.Request) -> web.Response:
        """One by its id."""
        return answer(shapes.recurring_run(self._row(request, "get")))

    async def delete(self, request: web.Request) -> web.Response:
        """Remove it with the Workflows that it owns, whose runs then never end, unless ORPHAN is asked for."""
        row = self._row(request, "delete")
        del self._service.rows.recurring_runs[row.id]
        if request.query.get("propagation_policy") != "ORPHAN":
            for run in [r for r in self._service.rows.runs.values() if r.recurring_run == row.id]:
                for workflow in self._service.argo.of(run.id):
                    self._service.argo.delete(workflow)
                    await self._service.workflows.delete(workflow)
        return answer({})

    async def enable(self, request: web.Request) -> web.Response:
        """Let it tick."""
        self._row(request, "enable").enabled = True
        return answer({})

    async def disable(self, request: web.Request) -> web.Response:
        """Let it rest."""
        self._row(request, "disable").enabled = False
        return answer({})

    async def tick(self, recurring_run: str) -> Run:
        """Start the next run of a schedule, as its controller does."""
        row = self._service.rows.recurring_runs[recurring_run]
        row.count += 1
        name = f"{row.name}-{row.count}-{1000 + row.count}"
        request: dict[str, Any] = {
            "display_name": name,
            "pipeline_version_reference": row.request.get("pipeline_version_reference"),
            "runtime_config": row.request.get("runtime_config"),
        }
        owner = {"apiVersion": "kubeflow.org/v1beta1", "kind": "ScheduledWorkflow", "name": row.name, "uid": row.id, "controller": True}
        experiment = self._service.rows.experiments[row.experiment]
        return await self._runs.start({k: v for k, v in request.items() if v}, experiment, recurring=row.id, owner=owner)

    def _row(self, request: web.Request, verb: str) -> RecurringRun:
        row = self._service.rows.recurring_runs.get(request.match_info["id"])
        if row is None:
            raise not_found("Job", request.match_info["id"]).within(f"Failed to {verb} a recurring run")
        self._service.gate.check(request, row.namespace, "jobs", verb)
        return row
