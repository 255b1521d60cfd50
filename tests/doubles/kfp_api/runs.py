"""Runs: made, looked at, stopped, tried again, put away and deleted."""

import asyncio
import re
from typing import Any

from aiohttp import web

from tests.doubles.kfp_api import shapes, templates
from tests.doubles.kfp_api.artifact_api import ArtifactApi
from tests.doubles.kfp_api.failures import Refusal, answer, internal, invalid, not_found
from tests.doubles.kfp_api.listing import page
from tests.doubles.kfp_api.rows import Change, Experiment, Run, Version
from tests.doubles.kfp_api.service import Service, body
from tests.doubles.kfp_api.workflow import Workflow

FIELDS = (
    "experiment_id",
    "run_id",
    "display_name",
    "storage_state",
    "description",
    "pipeline_version_id",
    "pipeline_version_reference",
    "pipeline_spec",
    "runtime_config",
    "service_account",
    "created_at",
    "scheduled_at",
    "finished_at",
    "state",
    "error",
    "run_details",
    "recurring_run_id",
    "state_history",
)
CREATING = ("Failed to create a new run", "Failed to create a run")
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
LONGEST_NAME = 255


class Runs:
    """The handlers of /runs."""

    def __init__(self, service: Service, artifacts: ArtifactApi) -> None:
        self._service = service
        self._artifacts = artifacts

    def routes(self) -> list[web.RouteDef]:
        """All paths."""
        one = "/runs/{id:[^:/]+}"
        return [
            web.post("/runs", self.create),
            web.get("/runs", self.list),
            web.get(one, self.get),
            web.delete(one, self.delete),
            web.post(one + ":terminate", self.terminate),
            web.post(one + ":retry", self.retry),
            web.post(one + ":archive", self.archive),
            web.post(one + ":unarchive", self.unarchive),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """Start a Workflow, then store the run: in this order, whatever comes between."""
        fields = (*FIELDS, "plugins_input") if self._service.options.tags else FIELDS
        given = await body(request, fields)
        query_experiment = request.query.get("experiment_id", "")
        if not given.get("display_name"):
            raise Refusal(
                13,
                "CreateJob(job.ToV2())Failed to create a run due to conversion error: Failed to convert the run: Invalid input error: "
                "Run name cannot be empty",
                "Internal Server Error",
            )
        experiment = self._experiment(str(given.get("experiment_id") or query_experiment))
        self._service.gate.check(request, experiment.namespace, "runs", "create")
        row = await self.start(given, experiment)
        return answer(self._shape(row))

    async def start(
        self, given: dict[str, Any], experiment: Experiment, *, recurring: str = "", owner: dict[str, Any] | None = None
    ) -> Run:
        """Make the run of a request; Refusal."""
        service, config = self._service, given.get("runtime_config") or {}
        try:
            spec, version = self._spec(given)
            values = templates.parameters(spec, config.get("parameters") or {})
            templates.check_executors(spec)
        except Refusal as refusal:
            raise refusal.within(*CREATING) from None
        run_id = str(given.get("run_id") or service.rows.new_id())
        if len(run_id) > 63 or not LABEL.fullmatch(run_id):
            problem = f'Failed to create a workflow for (): Workflow.argoproj.io "" is invalid: metadata.labels: Invalid value: "{run_id}"'
            raise internal(problem).within(*CREATING)
        now = service.rows.now()
        inline = "pipeline_spec" in given
        row = Run(
            id=run_id,
            name=str(given["display_name"]),
            created=now,
            experiment=experiment.id,
            namespace=experiment.namespace or service.options.namespace,
            state="PENDING",
            history=[Change("PENDING", now)],
            pipeline=version.pipeline if version else "",
            version=version.id if version else "",
            spec=dict(spec) if inline else None,
            parameters=dict(config.get("parameters") or {}),
            pipeline_root=str(config.get("pipeline_root") or ""),
            description=str(given.get("description") or ""),
            service_account=str(given.get("service_account") or "pipeline-runner"),
            scheduled=now,
            recurring_run=recurring,
        )
        await self._launch(row, spec, values, owner)
        self._insert(row)
        experiment.last_run = now
        return row

    async def list(self, request: web.Request) -> web.Response:
        """One page, every row with its tasks."""
        service, namespace, experiment = self._service, request.query.get("namespace", ""), request.query.get("experiment_id", "")
        rows = list(service.rows.runs.values())
        if experiment:
            found = service.rows.experiments.get(experiment)
            if found is None:
                raise not_found("Experiment", experiment).within("Failed to list runs", "Failed to get the experiment")
            service.gate.check(request, found.namespace, "runs", "list")
            rows = [r for r in rows if r.experiment == experiment]
        elif service.gate.multi_user:
            if not namespace:
                raise invalid("A run list request in multi-user mode must be filtered by namespace or experiment").within(
                    "Failed to list runs"
                )
            service.gate.check(request, namespace, "runs", "list")
            rows = [r for r in rows if r.namespace == namespace]
        try:
            found_page = page(rows, service.kinds["runs"], request.query)
        except Refusal as refusal:
            raise refusal.within("Failed to create list options", "Failed to list runs") from None
        listed = shapes.present(
            runs=[self._shape(r, request) for r in found_page.rows], total_size=found_page.total, next_page_token=found_page.next
        )
        return answer(listed)

    async def get(self, request: web.Request) -> web.Response:
        """The run as it was last reported."""
        row = self._row(request, "get", "Failed to get a run", f"Failed to fetch run {request.match_info['id']}")
        return answer(self._shape(row, request))

    async def delete(self, request: web.Request) -> web.Response:
        """Remove the row and one Workflow: that of the first POST."""
        row = self._row(request, "delete", "Failed to delete a run", f"Failed to delete run {request.match_info['id']}")
        del self._service.rows.runs[row.id]
        if first := next(iter(self._service.argo.of(row.id)), None):
            self._service.argo.delete(first)
            await self._service.workflows.delete(first)
        return answer({})

    async def terminate(self, request: web.Request) -> web.Response:
        """Store CANCELING, then ask the Workflow to stop: if that fails, the row says CANCELING all the same."""
        service = self._service
        row = self._row(request, "terminate", "Failed to terminate a run", f"Failed to terminate run {request.match_info['id']}")
        if row.state not in ("PENDING", "RUNNING", "PAUSED", ""):
            raise Refusal(
                3,
                f"Failed to terminate a run: Failed to terminate a run {row.id}. Row not found: Invalid input error: Row not found",
                "Row not found",
            )
        row.state = "CANCELING"
        workflow = self._live(row.id)
        if workflow is not None:
            try:
                await service.workflows.stop(workflow)
            except (LookupError, ConnectionError):
                workflow = None
        if workflow is None:
            await asyncio.sleep(service.options.patience)
            raise internal(f"Failed to terminate run {row.id}: failed to patch the Workflow").within("Failed to terminate a run")
        service.argo.stop(workflow, service.exact_now)
        return answer({})

    async def retry(self, request: web.Request) -> web.Response:
        """Let the same run go on where it failed, as people do in the UI."""
        row = self._row(request, "retry", "Failed to retry a run", f"Failed to retry run {request.match_info['id']}")
        workflow = next(iter(self._service.argo.of(row.id)), None)
        if workflow is None or not row.tasks or workflow.phase not in ("Failed", "Error"):
            why = "Workflow must be Failed/Error to retry: workflow cannot be retried" if row.tasks else "workflow manifest is empty"
            raise Refusal(10, f"Failed to retry a run: Failed to retry run {row.id}: {why}", why)
        now = self._service.exact_now
        self._service.retry_reset(row.id, now)
        self._service.argo.retry(workflow, now)
        return answer({})

    async def archive(self, request: web.Request) -> web.Response:
        """Put it away; lists show it all the same unless they filter."""
        self._row(request, "archive", "Failed to archive a run").archived = True
        return answer({})

    async def unarchive(self, request: web.Request) -> web.Response:
        """Take it back, unless its experiment is put away."""
        row = self._row(request, "unarchive", "Failed to unarchive a run")
        if self._service.rows.experiments[row.experiment].archived:
            raise Refusal(9, f"Failed to unarchive a run: Failed precondition: experiment {row.experiment} is archived")
        row.archived = False
        return answer({})

    def _shape(self, row: Run, request: web.Request | None = None) -> dict[str, Any]:
        if not self._service.options.artifact_api:
            return shapes.run(row)
        return self._artifacts.run(row, request.query.get("view", "") if request is not None else "")

    def _row(self, request: web.Request, verb: str, *steps: str) -> Run:
        """The run of the path; unknown ones are 404 before anybody is asked who they are."""
        run_id = request.match_info["id"]
        row = self._service.rows.runs.get(run_id)
        if row is None:
            raise not_found("Run", run_id).within(*steps)
        self._service.gate.check(request, row.namespace, "runs", verb)
        return row

    def _experiment(self, given: str) -> Experiment:
        found = self._service.rows.experiments.get(given)
        if found is not None:
            return found
        if given:
            raise not_found("Experiment", given).within(*CREATING, f"Failed to get the experiment {given}")
        if self._service.gate.multi_user:
            raise invalid("A run must have an experiment in multi-user mode").within(*CREATING)
        return self._service.default_experiment()

    def _spec(self, given: dict[str, Any]) -> tuple[dict[str, Any], Version | None]:
        if given.get("pipeline_spec"):
            try:
                templates.check(templates.inner(given["pipeline_spec"]))
            except templates.BadTemplate:
                raise internal("InvalidInputError: unknown template format: pipeline spec is invalid") from None
            return dict(given["pipeline_spec"]), None
        reference = given.get("pipeline_version_reference") or {}
        rows = self._service.rows
        pipeline, version = str(reference.get("pipeline_id", "")), str(reference.get("pipeline_version_id", ""))
        if version:
            found = rows.versions.get(version)
            if found is None:
                raise internal(f"ResourceNotFoundError: PipelineVersion {version} not found")
            if pipeline and found.pipeline != pipeline:
                raise internal(f"Invalid input error: Pipeline version {version} belongs to pipeline {found.pipeline} (not {pipeline})")
            return found.spec, found
        versions = rows.versions_of(pipeline)
        if not versions:
            what = (
                f"ResourceNotFoundError: PipelineVersion for pipeline {pipeline} not found" if pipeline else "empty pipeline spec manifest"
            )
            raise internal(what)
        newest = versions[-1].created
        chosen = next(v for v in versions if v.created == newest)  # of several in one second the first by id
        return chosen.spec, chosen

    async def _launch(self, row: Run, spec: dict[str, Any], values: dict[str, Any], owner: dict[str, Any] | None) -> None:
        service = self._service
        workflow = service.argo.create(
            templates.name(spec),
            namespace=row.namespace,
            run_id=row.id,
            run_name=row.name,
            tasks=templates.tasks(spec),
            parameters=values,
            service_account=row.service_account,
            now=service.exact_now,
            owner=owner,
        )
        try:
            await service.workflows.create(workflow)
        except ConnectionError as error:
            service.argo.delete(workflow)
            raise internal(f"Failed to create a workflow for (): {error}").within(*CREATING) from None

    def _insert(self, row: Run) -> None:
        problem = ""
        if row.id in self._service.rows.runs:
            problem = f"Error 1062 (23000): Duplicate entry '{row.id}' for key 'PRIMARY'"
        elif len(row.name) > LONGEST_NAME:
            problem = "Error 1406 (22001): Data too long for column 'DisplayName' at row 1"
        if problem:
            raise internal(f"Failed to store run {row.name} to table: {problem}").within(*CREATING)
        self._service.rows.runs[row.id] = row

    def _live(self, run_id: str) -> Workflow | None:
        """The Workflow that a termination reaches: that of the row, the first one."""
        return next(iter(self._service.argo.of(run_id)), None)
