"""Fixtures for tests of the whole operator."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, NatsServer
from tests.doubles.mlmd.engine import Mlmd
from tests.integration.operator.backends import backend
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import Bench
from tests.integration.operator.together import Together, discard, mlmd_of, starting


@pytest.fixture
def bench(request: pytest.FixtureRequest, cluster: Cluster, namespace: str, nats: NatsServer, tmp_path: Path) -> Iterator[Bench]:
    """A namespace, a NATS server, and operators that end with the test; its parameter, if it has one, names the backend."""
    name = getattr(request, "param", "local")
    mlmd = request.getfixturevalue("mlmd") if name == "kubeflow" else None
    with backend(name, cluster, namespace, tmp_path, mlmd) as chosen:
        made = Bench(cluster, namespace, nats, tmp_path, backend=chosen)
        yield made
        made.close()
    discard(cluster, namespace)


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The same for all tests of a module, with a neighbour namespace, an operator that runs and every backend that they name.

    Each test names its objects itself.
    """
    namespaces = [f"test-{secrets.token_hex(4)}" for _ in range(2)]
    for name in namespaces:
        cluster.kubectl("create", "namespace", name)
    folder, mlmd = tmp_path_factory.mktemp("shared"), mlmd_of(request)
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer())
        kubeflow = [stack.enter_context(backend("kubeflow", cluster, namespaces[0], folder, mlmd))] if mlmd is not None else []
        others = {other.name: other for other in kubeflow}
        made = stack.enter_context(contextlib.closing(Bench(cluster, namespaces[0], nats, folder, neighbour=namespaces[1], others=others)))
        made.operator().start().wait_ready()
        yield made
    for name in namespaces:
        discard(cluster, name)
        cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="session")
def mlmd() -> Iterator[Mlmd]:
    """A metadata store for all servers of Kubeflow Pipelines of the session: runs are told apart by their ids."""
    with Mlmd() as started:
        yield started


@pytest.fixture
def reader(nats: NatsServer) -> Reader:
    """What the bus holds, read as a stranger would."""
    return Reader(nats.url)


@pytest.fixture(scope="module")
def together(request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    """The scenarios of the module, started."""
    with starting(request, cluster, tmp_path_factory.mktemp("scenarios")) as started:
        yield started
