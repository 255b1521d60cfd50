"""The test bed: real Kubernetes and real NATS as child processes, without Docker.

``open_cluster`` finds or builds a Kubernetes control plane, ``NatsServer`` runs a JetStream server. Both run on free ports in scratch
folders, and are gone when this process is gone. ``python -m tests.cluster`` keeps a cluster for local development.

Read in this order: ``process`` (children that cannot be left behind), ``build`` and ``lookup`` (where the programs come from),
``cluster`` and ``control_plane`` (what tests hold in their hands), ``nats``, ``background`` (the cluster for development).
"""

from tests.cluster.build import build
from tests.cluster.cluster import Cluster, KubectlError
from tests.cluster.control_plane import ControlPlane
from tests.cluster.lookup import open_cluster
from tests.cluster.nats import NatsServer
from tests.cluster.ports import free_port
from tests.cluster.process import Process, ProcessError
from tests.cluster.progress import Progress
from tests.cluster.toolchain import BuildError

__all__ = [
    "BuildError",
    "Cluster",
    "ControlPlane",
    "KubectlError",
    "NatsServer",
    "Process",
    "ProcessError",
    "Progress",
    "build",
    "free_port",
    "open_cluster",
]
