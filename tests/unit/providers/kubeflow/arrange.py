"""For tests of the provider: a clock that is moved by waiting, Secrets in memory, small servers, providers on the simulated API."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from kfp_operator.errors import Permanent, Retryable
from kfp_operator.providers.kubeflow.authentication import Identity, Nobody
from kfp_operator.providers.kubeflow.client import Client
from kfp_operator.providers.kubeflow.clock import Clock
from kfp_operator.providers.kubeflow.limiter import Limiter
from kfp_operator.providers.kubeflow.parameters import KubeflowParameters
from kfp_operator.providers.kubeflow.provider import KubeflowProvider
from kfp_operator.providers.protocol import PipelineVersion, ProviderConfig, Secrets, Submission, Workflows, submission_id
from tests.doubles.kfp_api import KfpApi
from tests.doubles.kfp_api.workflow import Workflow

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeClock:
    """Waiting takes no time and moves the clock, up to `end` seconds, where it stands still; other tasks get their turn."""

    def __init__(self, start: datetime = NOW, *, end: float = float("inf")) -> None:
        self.start = start
        self.passed = 0.0
        self.end = end

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed

    async def sleep(self, seconds: float) -> None:
        self.passed += max(seconds, 0.0)
        await asyncio.sleep(0)
        if self.passed >= self.end:
            await asyncio.Event().wait()

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        await asyncio.sleep(0)
        if not event.is_set():
            await self.sleep(seconds)


class MemorySecrets:
    """Secrets by (name, key)."""

    def __init__(self, values: Mapping[tuple[str, str], bytes]) -> None:
        self.values = dict(values)
        self.reads = 0

    async def read(self, name: str, key: str) -> bytes:
        self.reads += 1
        if (name, key) not in self.values:
            raise Permanent(f"there is no Secret {name} with key {key}", reason="SecretNotFound")
        return self.values[name, key]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A server that answers everything with `handler`; its URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client_of(
    url: str, *, identity: Identity | None = None, clock: FakeClock | None = None, **parameters: Any
) -> AsyncIterator[Client]:
    """A client of the server at this URL."""
    ticking = clock or FakeClock()
    given = KubeflowParameters.model_validate({"endpoint": url, **parameters})
    limiter = Limiter(given.requests_per_second, 2 * given.requests_per_second, ticking)
    made = Client(given, identity or Nobody(), limiter, ticking)
    try:
        yield made
    finally:
        await made.close()


class SeenWorkflows:
    """The Workflows of a simulated Argo, as the cluster would show them. `forbidden`: why they may not be seen."""

    def __init__(self, kfp: KfpApi, *, forbidden: str = "") -> None:
        self._kfp = kfp
        self.forbidden = forbidden
        self.down = False
        self.lists = 0
        self._watches: list[asyncio.Queue[tuple[str, Mapping[str, Any]] | None]] = []

    async def list(self, namespace: str, selector: str) -> Sequence[Mapping[str, Any]]:
        self.lists += 1
        self._may()
        wanted = selector.partition("=")[2]
        return [w.document() for w in self._kfp.service.argo.of(wanted) if w.namespace == namespace]

    def cut(self) -> None:
        """Break the watches that are open."""
        for changes in self._watches:
            changes.put_nowait(None)

    async def watch(self, namespace: str, selector: str) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        self._may()
        assert selector == "pipeline/runid,pipeline/persistedFinalState!=true"
        changes: asyncio.Queue[tuple[str, Mapping[str, Any]] | None] = asyncio.Queue()
        known = {w.uid for w in self._kfp.service.argo.workflows.values() if not w.persisted and w.namespace == namespace}

        def listen(kind: str, workflow: Workflow) -> None:
            if workflow.namespace != namespace:
                return
            selected = not workflow.persisted and kind != "DELETED"
            if workflow.uid in known or selected:
                shown = ("MODIFIED" if workflow.uid in known else "ADDED") if selected else "DELETED"
                (known.add if selected else known.discard)(workflow.uid)
                changes.put_nowait((shown, {"metadata": workflow.document()["metadata"]}))

        self._kfp.service.argo.listeners.append(listen)
        self._watches.append(changes)
        try:
            for workflow in [w for w in self._kfp.service.argo.workflows.values() if w.uid in known]:
                yield "ADDED", {"metadata": workflow.document()["metadata"]}
            yield "SYNCED", {}
            while (change := await changes.get()) is not None:
                self._may()
                yield change
        finally:
            self._kfp.service.argo.listeners.remove(listen)
            self._watches.remove(changes)

    def _may(self) -> None:
        if self.down:
            raise Retryable("the API server does not answer")
        if self.forbidden:
            raise Permanent(self.forbidden, reason="WorkflowsForbidden")


SPEC: dict[str, Any] = yaml.safe_load((Path(__file__).parents[3] / "data" / "pipelines" / "scenario.yaml").read_text())["spec"][
    "pipelineSpec"
]


def pipeline(name: str = "train", *, namespace: str = "team-a", version: str = "49e208", spec: Mapping[str, Any] = SPEC) -> PipelineVersion:
    return PipelineVersion(namespace, name, version, spec)


def submission(number: int = 1, *, uid: str = "uid-1", mode: str = "succeed", first_try: bool = True, **changes: Any) -> Submission:
    """A submission of Run team-a/train-1."""
    given = {"parameters": {"mode": mode}, "pipeline": pipeline()} | changes
    return Submission(
        id=submission_id(uid, number), namespace="team-a", name="train-1", uid=uid, attempt=number, first_try=first_try, **given
    )


@asynccontextmanager
async def provider_of(
    kfp: KfpApi,
    *,
    clock: Clock | None = None,
    workflows: Workflows | None = None,
    secrets: Secrets | None = None,
    max_active_runs: int | None = None,
    pipeline_root: str = "",
    looked_until: datetime | None = None,
    name: str = "kfp",
    **parameters: Any,
) -> AsyncIterator[KubeflowProvider]:
    """Provider mlops/kfp on a simulated server; artifacts are left out unless asked for."""
    given = KubeflowParameters.model_validate({"endpoint": kfp.url, "artifactSource": "None", **parameters})
    config = ProviderConfig(
        namespace="mlops",
        name=name,
        parameters=given,
        pipeline_root=pipeline_root,
        max_active_runs=max_active_runs,
        looked_until=looked_until,
        workflows=workflows,
        secrets=secrets,
    )
    provider = KubeflowProvider(config, given, clock=clock)
    try:
        yield provider
    finally:
        await provider.close()
