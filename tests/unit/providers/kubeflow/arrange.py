"""For tests of the provider: a clock that is moved by waiting, Secrets in memory, small servers, providers on the simulated API."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from kfp_operator.errors import Permanent
from kfp_operator.providers.kubeflow.authentication import Identity, Nobody
from kfp_operator.providers.kubeflow.client import Client
from kfp_operator.providers.kubeflow.limiter import Limiter
from kfp_operator.providers.kubeflow.parameters import KubeflowParameters

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeClock:
    """Waiting takes no time and moves the clock; other tasks get their turn."""

    def __init__(self, start: datetime = NOW) -> None:
        self.start = start
        self.passed = 0.0

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed

    async def sleep(self, seconds: float) -> None:
        self.passed += max(seconds, 0.0)
        await asyncio.sleep(0)

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
