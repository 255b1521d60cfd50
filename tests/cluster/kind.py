"""A kind cluster, for who asks for it (``CLUSTER=kind``) and has a Docker engine."""

import shutil
import subprocess
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.folders import ScratchFolder

_CREATE_WITHIN = 600.0
_ANSWER_WITHIN = 10.0


def reason_against() -> str:
    """Return why kind cannot be used here, "" if it can."""
    for program in ("kind", "docker"):
        if shutil.which(program) is None:
            return f"there is no {program} on PATH"
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, timeout=_ANSWER_WITHIN, check=False)
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer"
    return "" if answer.returncode == 0 else "no Docker engine answers"


class KindCluster(Cluster):
    """A cluster that is made at the start and deleted at the stop, with a name of its own."""

    def __init__(self, *, kubectl_binary: Path, why: str, crds: Path | None = None) -> None:
        super().__init__(kubectl_binary=kubectl_binary, why=why, crds=crds)
        self._name = ""

    def start(self) -> None:
        """Create it; subprocess.CalledProcessError if kind fails (it says why on standard error)."""
        self._scratch = ScratchFolder()
        self._name = self.folder.name.replace("_", "-").lower()
        self._given_kubeconfig = self.folder / "admin.kubeconfig"
        self._kind("create", "cluster", "--wait", "120s")
        self._apply_crds()

    def stop(self) -> None:
        """Delete it."""
        if self._scratch is not None:
            self._kind("delete", "cluster")
        super().stop()

    def _kind(self, *arguments: str) -> None:
        command = ["kind", *arguments, "--name", self._name, "--kubeconfig", str(self.kubeconfig)]
        subprocess.run(command, check=True, timeout=_CREATE_WITHIN)
