"""Fixtures for tests of the command line on a real API server and a real NATS server."""

from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.integration.cli.shell import Shell


@pytest.fixture
def shell(cluster: Cluster, tmp_path: Path) -> Shell:
    """The administrator of the cluster, at a terminal."""
    return Shell(tmp_path, KUBECONFIG=str(cluster.kubeconfig))
