"""Where a command acts: an API server, our kinds under the API group in use, a namespace."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kfp_operator.api.names import Names
from kfp_operator.api.run import Run
from kfp_operator.operator.client import Cluster
from kfp_operator.operator.credentials import load_credentials
from kfp_operator.operator.resources import Kinds

REQUEST_TIMEOUT = 15.0
"""Seconds that a person waits for one answer."""


@dataclass(frozen=True, slots=True)
class Target:
    """What commands need of a cluster."""

    cluster: Cluster
    kinds: Kinds
    names: Names
    namespace: str

    async def run(self, name: str) -> Run:
        """A Run of the namespace; NotFound."""
        return Run.parse(await self.cluster.get(self.kinds.run, name, self.namespace))


@asynccontextmanager
async def connect(
    kubeconfig: str | None, context: str | None, *, namespace: str | None, group: str, patience: float = REQUEST_TIMEOUT
) -> AsyncIterator[Target]:
    """The cluster that the flags name. ConfigurationError when there is none; nothing is sent yet."""
    credentials = await load_credentials(kubeconfig, context)
    async with Cluster(credentials, timeout=patience) as cluster:
        yield Target(cluster, Kinds(group), Names(group), namespace or credentials.endpoint.namespace)
