"""Parts of the runtime, connected to the test's API server as the operator connects them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from kfp_operator.api.names import Names
from kfp_operator.operator.client import Cluster
from kfp_operator.operator.credentials import load_credentials
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.resources import Kinds
from kfp_operator.operator.source import Source
from kfp_operator.operator.store import Key, Store
from kfp_operator.operator.sweeper import Sweeper

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

    def __init__(self, client: Cluster, namespaces: tuple[str, ...]) -> None:
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
            invalid=self.invalid.__setitem__,
            metrics=self.metrics,
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
