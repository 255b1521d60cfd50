"""Fixtures for tests of the whole operator."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, NatsServer
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import Bench


@pytest.fixture
def bench(cluster: Cluster, namespace: str, nats: NatsServer, tmp_path: Path) -> Iterator[Bench]:
    """A namespace, a NATS server, and operators that end with the test."""
    made = Bench(cluster, namespace, nats, tmp_path)
    yield made
    made.close()
    # nobody is left to take finalizers off, and the namespace should go
    for resource in ("mlr", "mlp", "mlprv"):
        names = cluster.kubectl("get", resource, "-n", namespace, "-o", "name", check=False).stdout.split()
        for name in names:
            clear = ["patch", name, "-n", namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}']
            subprocess.run(
                [cluster.kubectl_binary, "--kubeconfig", cluster.kubeconfig, *clear], check=False, capture_output=True, timeout=30
            )


@pytest.fixture
def reader(nats: NatsServer) -> Reader:
    """What the bus holds, read as a stranger would."""
    return Reader(nats.url)
