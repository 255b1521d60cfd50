"""The server in this process: an HTTP server on a free port, with everything a test does to it.

Each request passes, in this order: the count, the faults, Argo (which does what was due), the handler.
"""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Self

from aiohttp import web

from tests.doubles.kfp_api.artifact_api import ArtifactApi
from tests.doubles.kfp_api.experiments import Experiments, RecurringRuns
from tests.doubles.kfp_api.failures import PlainRefusal, Refusal, UploadRefusal, answer, internal
from tests.doubles.kfp_api.faults import Fault, Faults
from tests.doubles.kfp_api.launcher import Launcher
from tests.doubles.kfp_api.outcomes import Outcome, Rule
from tests.doubles.kfp_api.pipelines import Pipelines
from tests.doubles.kfp_api.rows import Now, Run
from tests.doubles.kfp_api.runs import Runs
from tests.doubles.kfp_api.service import Options, Service, WorkflowStore

PREFIX = "/apis/v2beta1"
LARGEST_BODY = 64 * 1024 * 1024
TICK = 0.05
"""Seconds between two looks of Argo, on the real clock."""


def utc_now() -> datetime:
    """The real clock."""
    return datetime.now(UTC)


class KfpApi:
    """One API server. Use as an async context manager.

    Args:
        options: The installation.
        now: Its clock; None: the real one, on which Argo moves by itself.
        workflows: Where Workflows are kept for others to see; None: nowhere.
        recorder: URL of the recorder of an ML Metadata store (`Mlmd.recorder`); empty: what steps write is told by nobody.
        host: Address to listen on.
        port: 0: a free one.
        first: Number that names of Workflows begin with.

    """

    def __init__(
        self,
        options: Options | None = None,
        *,
        now: Now | None = None,
        workflows: WorkflowStore | None = None,
        recorder: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
        first: int = 1,
    ) -> None:
        self.options = options or Options()
        self.service = Service(self.options, now or utc_now, workflows, first=first)
        self.faults = Faults()
        self.requests: Counter[tuple[str, str]] = Counter()
        """Requests that arrived, by method and path pattern: ("GET", "/runs/{id}")."""
        self._artifacts = ArtifactApi(self.service)
        self._runs = Runs(self.service, self._artifacts)
        self._recurring = RecurringRuns(self.service, self._runs)
        self._launcher = Launcher(self.service.argo, recorder, time.monotonic) if recorder else None
        self.service.workflows.attach(self.service.argo, self.recorded)
        self._real_clock = now is None
        self._address = (host, port)
        self._runner: web.AppRunner | None = None
        self._ticker: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it answers: what a Provider has as endpoint."""
        if self._runner is None:
            raise RuntimeError("the server was not started")
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    # What a test does to it

    def outcome(self, outcome: Outcome, **match: Any) -> None:
        """What becomes of runs that match (see `Rule`); the newest rule is asked first."""
        self.service.script.add(Rule(outcome, **match))

    def fault(self, **fault: Any) -> None:
        """Something that will happen to requests (see `Fault`)."""
        self.faults.add(Fault(**fault))

    def run(self, run_id: str) -> Run:
        """The row of a run, as it is now."""
        self.service.catch_up()
        return self.service.rows.runs[run_id]

    def start(self, run_id: str) -> None:
        """Let a run begin whose outcome is by hand."""
        self.service.argo.start(run_id, self.service.exact_now)

    def finish(self, run_id: str, phase: str = "Succeeded", *, fails_in: str = "", message: str = "") -> None:
        """Let a run end whose outcome is by hand or which waits."""
        self.service.argo.finish(run_id, self.service.exact_now, phase, fails_in=fails_in, message=message)

    async def tick(self, recurring_run: str) -> Run:
        """Start the next run of a recurring run."""
        return await self._recurring.tick(recurring_run)

    def started(self, run_id: str) -> int:
        """How many Workflows were ever made for a run: more than one is a defect of the caller."""
        return self.service.argo.made[run_id]

    # Life

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=LARGEST_BODY, middlewares=[self._middleware])
        handlers = (Pipelines(self.service), Experiments(self.service), self._runs, self._recurring, self._artifacts)
        for route in (route for group in handlers for route in group.routes()):
            app.router.add_route(route.method, PREFIX + route.path, route.handler)
        for path in ("/apis/v2beta1/healthz", "/apis/v1beta1/healthz"):
            app.router.add_get(path, self._health)
        self.extend(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._address).start()
        if self._real_clock:
            self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker
        if self._runner is not None:
            await self._runner.cleanup()

    async def catch_up(self) -> None:
        """Let Argo do what was due until now, and have it recorded what steps wrote."""
        self.service.catch_up()
        await self.recorded()

    async def recorded(self) -> None:
        """Return when ML Metadata knows what happened, if there is one that answers."""
        if self._launcher is not None:
            await self._launcher.flush()

    def extend(self, app: web.Application) -> None:
        """Add what is no part of the real server."""

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            await self.catch_up()

    async def _health(self, request: web.Request) -> web.Response:
        """Who it says it is: the version is an echo of the environment."""
        body: dict[str, Any] = {"commit_sha": "unknown", "tag_name": self.options.version, "multi_user": self.service.gate.multi_user}
        if self.options.since(2, 17):
            body["pipeline_store"] = "kubernetes" if self.options.kubernetes_store else "database"
        return answer(body)

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if not request.path.startswith("/apis/"):
            found: web.StreamResponse = await handler(request)
            return found
        path = request.path.removeprefix(PREFIX)
        resource = request.match_info.route.resource
        pattern = _pattern(resource.canonical) if resource is not None else path
        self.requests[request.method, pattern] += 1
        return await self.faults.around(request, path, lambda asked: self._answer(asked, handler))

    async def _answer(self, request: web.Request, handler: Any) -> web.StreamResponse:
        await self.catch_up()
        try:
            if not self.service.database and not request.path.endswith("/healthz"):
                raise internal("dial tcp 10.0.0.1:3306: connect: connection refused").within("Failed to start transaction")
            answered: web.StreamResponse = await handler(request)
        except (Refusal, UploadRefusal, PlainRefusal) as refusal:
            return refusal.answer()
        except web.HTTPMethodNotAllowed:
            return Refusal(12, "Method Not Allowed", details=False).answer()
        except web.HTTPNotFound:
            return Refusal(5, "Not Found", details=False).answer()
        return answered


def _pattern(canonical: str) -> str:
    return canonical.removeprefix(PREFIX)
