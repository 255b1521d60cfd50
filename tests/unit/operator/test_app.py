"""How the parts are put together, where that is a promise of its own."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from kfp_operator.errors import LeadershipLost
from kfp_operator.events.bus import Cursor
from kfp_operator.operator.app import Operator
from kfp_operator.operator.client import CONNECTIONS
from kfp_operator.operator.credentials import load_credentials
from kfp_operator.operator.projector import DURABLE
from kfp_operator.operator.store import Key
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


async def test_work_that_waits_for_the_lease_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with api_server(tmp_path) as (kubeconfig, _):
        settings = Settings(leader_election=LeaderElectionSettings(namespace="default"))
        operator = Operator(settings, await load_credentials(kubeconfig))
        caplog.set_level(logging.INFO)
        for _ in range(2):
            operator.lease._renewed = None
            for n in range(20):
                operator._put_off(Key("Run", "team", f"run-{n}"), LeadershipLost("Lease default/kfp-operator was renewed 11 s ago"))
                operator._acts()
            async with operator.lease_cluster:
                await asyncio.wait_for(operator.lease.acquire(), PROMPTLY)
            operator._acts()
        said = [r.getMessage() for r in caplog.records if r.name == "kfp_operator.operator.app"]
        assert [message.partition(" ")[0] for message in said] == ["Run", "this", "Run", "this"]


async def test_an_object_that_cannot_be_read_is_told_of_where_its_owner_looks(tmp_path: Path) -> None:
    async with api_server(tmp_path) as (kubeconfig, _):
        operator = Operator(Settings(), await load_credentials(kubeconfig))
        operator._on_invalid(Key("RunSchedule", "team", "nightly"), "uid-1", "spec.schedule: Field required")
        note = operator.recorder._queue.get_nowait()
        assert (note.involved["kind"], note.involved["name"], note.involved["uid"]) == ("RunSchedule", "nightly", "uid-1")
        assert (note.what.type, note.what.reason) == ("Warning", "Unreadable")
        assert "spec.schedule: Field required" in note.what.message


async def test_cursors_are_kept_in_a_file_where_there_is_no_lease(tmp_path: Path) -> None:
    async with api_server(tmp_path) as (kubeconfig, _):
        settings = Settings(leader_election=LeaderElectionSettings(enabled=False), state_dir=tmp_path / "state")
        operator = Operator(settings, await load_credentials(kubeconfig))
        operator.cursors.keep(DURABLE, Cursor("2026-03-01T12:00:00Z", 7))
        again = Operator(settings, await load_credentials(kubeconfig))
        assert again._cursor() == Cursor("2026-03-01T12:00:00Z", 7)
