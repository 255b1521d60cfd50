"""A Kubernetes cluster as tests see it: a kubeconfig, a kubectl, and the few things they ask of it.

Where it comes from is decided in ``lookup.py``; ``control_plane.py`` holds the one that we run ourselves.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from tests.cluster import kubeconfig
from tests.cluster.folders import ScratchFolder


class KubectlError(RuntimeError):
    """kubectl exited with a status other than 0; the message is what it wrote to standard error."""


class Cluster:
    """A cluster that exists already: started and stopped by somebody else.

    Args:
        kubectl_binary: The kubectl that suits it.
        why: How it was found and why it was chosen, for people.
        kubeconfig_file: Its kubeconfig, with the rights of an administrator.
        crds: Folder of manifests to apply at the start; None: none.

    """

    def __init__(self, *, kubectl_binary: Path, why: str, kubeconfig_file: Path | None = None, crds: Path | None = None) -> None:
        self.why = why
        self.kubectl_binary = kubectl_binary
        self._given_kubeconfig = kubeconfig_file
        self._crds = crds
        self._scratch: ScratchFolder | None = None

    def start(self) -> None:
        """Make it ready for use."""
        self._scratch = ScratchFolder()
        self._apply_crds()

    def stop(self) -> None:
        """Remove what ``start`` made on this machine."""
        if self._scratch is not None:
            self._scratch.remove()
            self._scratch = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """A folder on this machine that lasts as long as the cluster is used."""
        if self._scratch is None:
            raise RuntimeError("the cluster was not started")
        return self._scratch.path

    @property
    def kubeconfig(self) -> Path:
        """Path of the administrator's kubeconfig."""
        if self._given_kubeconfig is None:
            raise RuntimeError("the cluster was not started")
        return self._given_kubeconfig

    @property
    def url(self) -> str:
        """The API server's address."""
        return kubeconfig.read(self.kubeconfig).url

    @property
    def ca(self) -> str:
        """The API server's authority as PEM text."""
        return kubeconfig.read(self.kubeconfig).ca

    @property
    def token(self) -> str:
        """The administrator's bearer token; "" when the kubeconfig authenticates in another way."""
        return kubeconfig.read(self.kubeconfig).token

    @property
    def version(self) -> str:
        """The API server's version, as v1.36.3."""
        version: str = json.loads(self.kubectl("get", "--raw", "/version").stdout)["gitVersion"]
        return version

    @property
    def has_controller_manager(self) -> bool:
        """Whether owners' dependents and namespaces' contents are deleted."""
        return True

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """Return a kubeconfig with the identity, and so the rights, of another user.

        Here the administrator impersonates them, which only clients based on client-go understand (kubectl does).
        """
        path = self.folder / kubeconfig.file_name(user, groups)
        return kubeconfig.write_impersonating(path, self.kubeconfig, user=user, groups=tuple(groups))

    def kubectl(
        self, *args: str | Path, stdin: str = "", check: bool = True, within: float = 60, kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl and return its result with ``stdout`` and ``stderr``.

        Args:
            args: Its arguments.
            stdin: Text for its standard input, for ``-f -``.
            check: Raise if it fails.
            within: Seconds until it is killed (subprocess.TimeoutExpired).
            kubeconfig: Another user's, from ``kubeconfig_for``.

        Raises:
            KubectlError: It failed and ``check`` is set.

        """
        command = [self.kubectl_binary, "--kubeconfig", kubeconfig or self.kubeconfig, *args]
        result = subprocess.run(command, input=stdin, text=True, capture_output=True, timeout=within, env=self._environment(), check=False)
        if check and result.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(map(str, args))}: {result.stderr.strip()}")
        return result

    def apply(self, *documents: Mapping[str, Any], namespace: str | None = None) -> None:
        """Apply manifests given as documents; KubectlError says what the API server refused."""
        scope = ["--namespace", namespace] if namespace else []
        self.kubectl("apply", *scope, "-f", "-", stdin=yaml.safe_dump_all(documents))

    def get(self, resource: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return an object as a document, None if there is none."""
        scope = ["--namespace", namespace] if namespace else []
        text = self.kubectl("get", resource, name, *scope, "--ignore-not-found", "--output", "json").stdout
        found: dict[str, Any] | None = json.loads(text) if text.strip() else None
        return found

    def _environment(self) -> dict[str, str]:
        # A discovery cache of its own: the usual one is keyed by address, and another cluster may have had this port.
        environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
        return {**environment, "KUBECACHEDIR": str(self.folder / "kubectl-cache")}

    def _apply_crds(self) -> None:
        if self._crds is not None and any(self._crds.glob("*.yaml")):
            self.kubectl("apply", "--server-side", "--force-conflicts", "-f", self._crds)
            self.kubectl("wait", "--for=condition=Established", "crd", "--all")
