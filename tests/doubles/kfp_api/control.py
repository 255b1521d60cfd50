"""What a test does to a server in another process: over HTTP, beside the API, as the methods of `KfpApi` are called.

`ControlledKfpApi` answers, `tests.doubles.kfp_api.process.KfpApiProcess` asks.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from tests.doubles.kfp_api.faults import Fault
from tests.doubles.kfp_api.outcomes import Outcome
from tests.doubles.kfp_api.rows import Run
from tests.doubles.kfp_api.server import KfpApi

PREFIX = "/test"
SHOWN = ("id", "name", "state", "description", "parameters", "experiment", "pipeline", "version", "namespace", "service_account")
"""Members of a row that tests in another process see."""
Command = Callable[[dict[str, Any]], Awaitable[Any]]


class ControlledKfpApi(KfpApi):
    """A server that a test in another process controls: POST /test/COMMAND with the arguments as JSON."""

    def extend(self, app: web.Application) -> None:
        """Add the commands."""
        self._commands: dict[str, Command] = {
            "outcome": self._set_outcome,
            "fault": self._add_fault,
            "clear_faults": self._clear_faults,
            "start": self._start,
            "finish": self._finish,
            "tick": self._tick_recurring,
            "requests": self._count_requests,
            "runs": self._list_runs,
            "workflows": self._list_workflows,
        }
        app.router.add_post(PREFIX + "/{command}", self._command)

    async def _command(self, request: web.Request) -> web.Response:
        command = self._commands.get(request.match_info["command"])
        if command is None:
            raise web.HTTPNotFound(text=f"commands: {', '.join(sorted(self._commands))}")
        await self.catch_up()
        try:
            return web.json_response(await command(await request.json()))
        except (TypeError, ValueError, LookupError) as error:
            raise web.HTTPBadRequest(text=f"{type(error).__name__}: {error}") from error

    async def _set_outcome(self, given: dict[str, Any]) -> None:
        self.outcome(Outcome.parse(given.pop("outcome")), **given)

    async def _add_fault(self, given: dict[str, Any]) -> None:
        self.faults.add(Fault(**given))

    async def _clear_faults(self, _: dict[str, Any]) -> None:
        self.faults.clear()

    async def _start(self, given: dict[str, Any]) -> None:
        self.start(given["run_id"])

    async def _finish(self, given: dict[str, Any]) -> None:
        self.finish(given.pop("run_id"), **given)

    async def _tick_recurring(self, given: dict[str, Any]) -> str:
        return (await self.tick(given["recurring_run"])).id

    async def _count_requests(self, _: dict[str, Any]) -> list[list[Any]]:
        return [[method, path, count] for (method, path), count in self.requests.items()]

    async def _list_runs(self, _: dict[str, Any]) -> list[dict[str, Any]]:
        return [self._seen(row) for row in self.service.rows.runs.values()]

    async def _list_workflows(self, _: dict[str, Any]) -> list[dict[str, Any]]:
        return [workflow.document() for workflow in self.service.argo.workflows.values()]

    def _seen(self, row: Run) -> dict[str, Any]:
        shown = asdict(row)
        seen = {key: shown[key] for key in SHOWN}
        return seen | {"started": self.started(row.id), "history": [c.state for c in row.history]}
