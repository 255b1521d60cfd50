"""Fixtures for tests on real parts: a Kubernetes API server, NATS with JetStream. Nothing starts before a test asks for it."""

import os
import secrets
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from hypothesis import HealthCheck, settings

from tests.cluster import Cluster, ControlPlane, NatsServer, Progress, open_cluster

_CRDS = Path(__file__).parent.parent / "crds"

# what takes long on a crowded machine is no defect of the code under test
settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure() -> None:
    """Keep everything that runs here away from the cluster that its user works with."""
    os.environ["KUBECONFIG"] = os.devnull


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let reports with text that is not Unicode, which some tests log, pass from worker processes."""
    report = yield
    report.sections = [(name, content.encode(errors="backslashreplace").decode()) for name, content in report.sections]
    return report


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster with our CRDs: one of its own per session, or the one of TEST_KUBECONFIG."""
    given = os.environ.get("TEST_KUBECONFIG")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():  # the first time it is built, which takes minutes: let people watch
        found = open_cluster(Path(given) if given else None, crds=_CRDS, progress=Progress())
    with found:
        yield found


@pytest.fixture
def control_plane(cluster: Cluster) -> ControlPlane:
    """The same cluster, for tests that stop, freeze or restart its API server; skipped where it is not ours."""
    if not isinstance(cluster, ControlPlane):
        pytest.skip("needs an API server of our own")
    return cluster


@pytest.fixture
def controller_manager(cluster: Cluster) -> None:
    """Asked for by tests that need garbage collection or the end of a namespace."""
    if not cluster.has_controller_manager:
        pytest.skip("needs a kube-controller-manager")


@pytest.fixture
def kubectl(cluster: Cluster) -> Callable[..., CompletedProcess[str]]:
    """``Cluster.kubectl`` with the administrator's rights."""
    return cluster.kubectl


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace with a random name; its deletion is not waited for."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def nats() -> Iterator[NatsServer]:
    """A fresh NATS server with JetStream; tests that need users, TLS or accounts make their own ``NatsServer(config=...)``."""
    with NatsServer() as server:
        yield server
