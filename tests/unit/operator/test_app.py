"""How the parts are put together, where that is a promise of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml
from aiohttp import web

from kfp_operator.operator.app import Operator
from kfp_operator.operator.client import CONNECTIONS
from kfp_operator.operator.credentials import load_credentials
from kfp_operator.settings import LeaderElectionSettings, Settings

PROMPTLY = 5.0


@asynccontextmanager
async def api_server(folder: Path) -> AsyncIterator[tuple[Path, asyncio.Semaphore]]:
    """An API server that answers for Leases at once and for Runs never: its kubeconfig, and a count of requests that wait for ever."""
    waiting = asyncio.Semaphore(0)
    end = asyncio.Event()

    async def lease(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({"kind": "Status", "code": 404}, status=404)
        body = await request.json()
        return web.json_response(body | {"metadata": body["metadata"] | {"resourceVersion": "1"}}, status=201)

    async def never(_: web.Request) -> web.Response:
        waiting.release()
        await end.wait()
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/apis/coordination.k8s.io/{rest:.*}", lease)
    app.router.add_route("*", "/{rest:.*}", never)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    file = folder / "kubeconfig"
    named = {"name": "it"}
    file.write_text(
        yaml.safe_dump(
            {
                "current-context": "it",
                "contexts": [named | {"context": {"cluster": "it", "user": "it"}}],
                "clusters": [named | {"cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}],
                "users": [named | {"user": {"token": "t"}}],
            }
        )
    )
    yield file, waiting
    end.set()
    await runner.cleanup()


async def test_the_lease_is_taken_while_every_other_request_waits(tmp_path: Path) -> None:
    async with api_server(tmp_path) as (kubeconfig, waiting):
        settings = Settings(leader_election=LeaderElectionSettings(namespace="default"))
        operator = Operator(settings, await load_credentials(kubeconfig))
        async with operator.cluster, operator.lease_cluster:
            held_up = [asyncio.create_task(operator.cluster.get(operator.kinds.run, f"run-{n}", "team")) for n in range(2 * CONNECTIONS)]
            try:
                for _ in range(CONNECTIONS):
                    await asyncio.wait_for(waiting.acquire(), PROMPTLY)
                await asyncio.wait_for(operator.lease.acquire(), PROMPTLY)
                operator.guard()
            finally:
                for task in held_up:
                    task.cancel()
                await asyncio.wait(held_up)
