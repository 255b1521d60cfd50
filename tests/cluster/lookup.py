"""Which cluster to use, and why.

In this order: an explicit kubeconfig; kind, if it is asked for (``CLUSTER=kind``) and can be used; the programs in ``KUBEBUILDER_ASSETS``
(the convention of envtest); those that an earlier build left in the user's cache folder; else they are built. What was asked for goes
before what was merely found.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster import kind
from tests.cluster.build import PACKAGES, build, kubernetes_version, missing
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import Binaries, ControlPlane
from tests.cluster.progress import Progress

_REQUIRED_ASSETS = ("kube-apiserver", "etcd", "kubectl")


def open_cluster(
    kubeconfig: Path | None = None,
    *,
    crds: Path | None = None,
    users: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Cluster:
    """Return a cluster, not started yet (``with`` starts and stops it), and say which and why.

    Args:
        kubeconfig: Use this cluster.
        crds: Folder of manifests to apply at the start, if there are any in it.
        users: For a cluster of our own: users besides ``admin``, each with its groups.
        progress: Where to tell what goes on.
        environment: CLUSTER and KUBEBUILDER_ASSETS are read; the exported KUBECONFIG deliberately is not.

    Raises:
        BuildError: The programs had to be built, and it failed.
        FileNotFoundError: There is no such kubeconfig.

    """
    progress = progress or Progress()
    cluster = _choose(kubeconfig, crds, users, progress, environment)
    progress.say(f"cluster: {cluster.why}")
    return cluster


def _choose(
    kubeconfig: Path | None,
    crds: Path | None,
    users: Mapping[str, Sequence[str]] | None,
    progress: Progress,
    environment: Mapping[str, str],
) -> Cluster:
    if kubeconfig is not None:
        if not kubeconfig.is_file():
            raise FileNotFoundError(f"there is no kubeconfig {kubeconfig}")
        return Cluster(
            kubectl_binary=_any_kubectl(progress), why=f"the one of {kubeconfig}, as asked for", kubeconfig_file=kubeconfig, crds=crds
        )
    if wanted := environment.get("CLUSTER"):
        against = kind.reason_against() if wanted == "kind" else "only kind is known"
        if not against:
            return kind.KindCluster(kubectl_binary=_any_kubectl(progress), why="kind, as asked for (CLUSTER=kind)", crds=crds)
        progress.say(f"CLUSTER={wanted} cannot be used: {against}")
    if assets := environment.get("KUBEBUILDER_ASSETS"):
        lacking = [name for name in _REQUIRED_ASSETS if not (Path(assets) / name).exists()]
        if not lacking:
            return ControlPlane(
                binaries=_binaries(Path(assets)), why=f"an API server of our own, from KUBEBUILDER_ASSETS={assets}", crds=crds, users=users
            )
        progress.say(f"KUBEBUILDER_ASSETS={assets} cannot be used: it has no {', '.join(lacking)}")
    origin = "just built" if missing(PACKAGES) else "built earlier"
    folder = build(PACKAGES, progress)
    why = f"an API server of our own, Kubernetes {kubernetes_version()}, {origin} ({folder})"
    return ControlPlane(binaries=_binaries(folder), why=why, crds=crds, users=users)


def _binaries(folder: Path) -> Binaries:
    manager = folder / "kube-controller-manager"
    return Binaries(
        kube_apiserver=folder / "kube-apiserver",
        etcd=folder / "etcd",
        kubectl=folder / "kubectl",
        kube_controller_manager=manager if manager.exists() else None,
    )


def _any_kubectl(progress: Progress) -> Path:
    """Return the kubectl on PATH, which suits its owner's cluster; else build ours."""
    on_path = shutil.which("kubectl")
    return Path(on_path) if on_path else build(["kubectl"], progress) / "kubectl"
