"""Parts of the runtime, connected to the test's API server as the operator connects them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from kfp_operator.api.names import Names
from kfp_operator.operator.client import Cluster
from kfp_operator.operator.credentials import load_credentials
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.resources import Kinds
from kfp_operator.operator.source import Source
from kfp_operator.operator.store import Key, Store
from kfp_operator.operator.sweeper import Sweeper
from tests.cluster import Cluster as RealCluster
from tests.waiting import eventually_async

KINDS = Kinds()


@asynccontextmanager
async def connected(kubeconfig: Path, **options: Any) -> AsyncIterator[Cluster]:
    """A client with the identity of the kubeconfig."""
    async with Cluster(await load_credentials(kubeconfig), **options) as client:
        yield client


def run_manifest(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"pipeline": "train", "provider": "mlops/local", **spec}}


class Watched:
    """A source and a sweeper that feed a store, and what they said."""

    def __init__(self, client: Cluster, namespaces: tuple[str, ...], *, pause: float = 1.0) -> None:
        self.store = Store(Names())
        self.metrics = Metrics()
        self.changed: list[Key] = []
        self.gone: list[Key] = []
        self.relists = 0
        self.invalid: dict[Key, str] = {}
        self.sweeper = Sweeper(
            client, self.store, kinds=KINDS.all, namespaces=namespaces, gone=lambda key, _: self.gone.append(key), metrics=self.metrics
        )
        self.source = Source(
            client.credentials,
            client,
            self.store,
            names=Names(),
            kinds=KINDS.all,
            namespaces=namespaces,
            changed=self.changed.append,
            gone=lambda key, _: self.gone.append(key),
            relisted=self._relisted,
            invalid=lambda key, _uid, why: self.invalid.__setitem__(key, why),
            metrics=self.metrics,
            pause=pause,
        )

    def _relisted(self) -> None:
        self.relists += 1
        self.sweeper.soon()

    @property
    def runs(self) -> set[str]:
        return {key.name for key in self.store.keys("Run")}


@asynccontextmanager
async def watching(client: Cluster, *namespaces: str) -> AsyncIterator[Watched]:
    """Watch from here to the end of the context; sweeps happen only when a watch began anew."""
    watched, stop = Watched(client, namespaces), asyncio.Event()
    source, sweeper = asyncio.create_task(watched.source.run(stop)), asyncio.create_task(watched.sweeper.run())
    try:
        yield watched
    finally:
        sweeper.cancel()
        stop.set()
        await asyncio.wait({source}, timeout=20)
        source.cancel()
        with suppress(asyncio.CancelledError):
            await sweeper
        with suppress(asyncio.CancelledError):
            await source


class Gateway:
    """Stands between a client and the API server, as a proxy in a cluster does, and can answer watches by itself."""

    def __init__(self, upstream: Cluster) -> None:
        self._upstream = upstream
        self._ports: list[int] = []
        self._open: dict[asyncio.Event, str] = {}
        self.watch_error: dict[str, Any] | None = None
        """While set, each watch of Runs gets this error event and nothing else."""
        self.refuse = 0
        """While set, the status of every answer."""
        self.errors = 0
        """How many got it."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}/k8s/clusters/c-1"

    async def watches_open(self) -> None:
        """Wait until all our kinds are watched; a source is in sync when it has asked for the watches."""
        await eventually_async(lambda: len(set(self._open.values())) == len(KINDS.all), 30, "the watches are open")

    def cut_watches(self) -> None:
        """End the watches that are open."""
        for ended in self._open:
            ended.set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_route("GET", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._ports.append(runner.addresses[0][1])
        async with self._upstream.credentials.session(limit=0) as self._session:
            try:
                yield
            finally:
                self.cut_watches()
                await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.refuse:
            return web.json_response({"kind": "Status", "code": self.refuse}, status=self.refuse)
        watch = request.query.get("watch") == "true"
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        if watch and self.watch_error is not None and request.path.endswith("/runs"):
            await response.prepare(request)
            await response.write(json.dumps({"type": "ERROR", "object": self.watch_error}).encode() + b"\n")
            self.errors += 1
            return response
        headers = {"Accept": request.headers.get("Accept", "*/*")}
        async with self._session.get(self._upstream.server + request.raw_path.removeprefix("/k8s/clusters/c-1"), headers=headers) as answer:
            response.set_status(answer.status)
            await response.prepare(request)
            ended = asyncio.Event()
            if watch:
                self._open[ended] = request.path
            end = asyncio.create_task(ended.wait())
            while not ended.is_set():
                chunk = asyncio.create_task(answer.content.readany())
                await asyncio.wait({chunk, end}, return_when=asyncio.FIRST_COMPLETED)
                if not chunk.done():
                    chunk.cancel()
                elif data := chunk.result():
                    await response.write(data)
                    continue
                break
            end.cancel()
            self._open.pop(ended, None)
            if answer.connection is not None and answer.connection.transport is not None:
                answer.connection.transport.abort()  # else it is still closing when the test's loop ends
        return response


def plain_kubeconfig(folder: Path, url: str) -> Path:
    """A kubeconfig for a server that asks for nothing."""
    path = folder / "plain.kubeconfig"
    entries = {"clusters": [{"name": "c", "cluster": {"server": url}}], "contexts": [{"name": "x", "context": {"cluster": "c"}}]}
    path.write_text(json.dumps(entries | {"current-context": "x"}))
    return path


def with_user(cluster: RealCluster, folder: Path, **user: Any) -> Path:
    """The cluster's kubeconfig with another user in it."""
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    document["users"][0]["user"] = user
    path = folder / "config"
    path.write_text(yaml.safe_dump(document))
    return path
