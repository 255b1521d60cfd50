"""``/healthz``, ``/readyz`` and ``/metrics`` over HTTP.

Liveness asks whether this process can still answer, nothing else: restarting it does not bring back NATS or the API server. Readiness
says what is missing, one line for each check, so that ``kubectl describe pod`` and ``curl`` show the cause.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from kfp_operator.errors import ConfigurationError
from kfp_operator.operator.metrics import Metrics

SHUTDOWN = 2.0
"""Seconds that a request in hand gets when the server ends."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that readiness depends on. `text` says how it is, and when not `ok`, what is wrong and with what."""

    ok: bool
    text: str


class Health:
    """The HTTP server. `checks` is called for each request of ``/readyz`` and must only look."""

    def __init__(self, metrics: Metrics, checks: Callable[[], Mapping[str, Check]]) -> None:
        self._metrics = metrics
        self._checks = checks
        self.port = 0
        """The port in use."""

    @asynccontextmanager
    async def serving(self, port: int, host: str | None = None) -> AsyncIterator[None]:
        """Serve for the time of the context. Port 0: a free one; no host: every address of this machine.

        Raises ConfigurationError when the port cannot be had.
        """
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/readyz", self._readyz), web.get("/metrics", self._exposition)])
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                raise ConfigurationError(f"http.port {port} cannot be used, choose another (0: a free one): {error.strerror}") from error
            self.port = runner.addresses[0][1]
            yield
        finally:
            await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        checks = self._checks()
        ready = all(check.ok for check in checks.values())
        status = 200 if ready else 503
        if "application/json" in request.headers.get("Accept", ""):
            document = {"ready": ready, "checks": {name: {"ok": check.ok, "text": check.text} for name, check in checks.items()}}
            return web.Response(text=json.dumps(document), status=status, content_type="application/json")
        lines = [f"[{'+' if check.ok else '-'}] {name}: {check.text}" for name, check in checks.items()]
        return web.Response(text="\n".join([*lines, "ready" if ready else "not ready"]) + "\n", status=status)

    async def _exposition(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})
