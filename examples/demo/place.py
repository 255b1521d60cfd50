"""The cluster in which the demo happens, and where in it.

On the test bed everything is as in the README: namespace ``default``, manifests as they are. On somebody's cluster (``make demo
KUBECONFIG=...``) the demo keeps to itself: a namespace of its own, an operator that serves that namespace only, the Pipeline's reference
to its Provider rewritten; CRDs that are there are used as they are, those that are not are installed and removed again.
"""

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from examples.demo import DemoError
from examples.demo.text import Page
from tests.cluster import Cluster, Progress, open_cluster

ROOT = Path(__file__).parents[2]
_DELETE_WITHIN = 60
_KINDS = "runschedules,runconfigurations,runs,experiments,pipelines,providers"


class Place:
    """A cluster, and the namespace of the demo in it. ``prepare`` and ``leave`` belong together."""

    def __init__(self, cluster: Cluster, page: Page) -> None:
        self.cluster = cluster
        self.page = page
        self.namespace = "default"
        self.operator_flags: Sequence[str] = ()
        self.operator_settings: Mapping[str, str] = {}

    def prepare(self) -> None:
        """Install the CRDs."""
        self.page.command("kubectl apply -f crds/")
        self.page.output(self.kubectl("apply", "-f", ROOT / "crds"))

    def manifests(self, folder: Path, *files: str) -> tuple[Sequence[str], Sequence[Path]]:
        """What to apply, as people write it and as it is: files or folders below ``examples``. `folder`: for copies."""
        return [f"examples/{file}" for file in files], [ROOT / "examples" / file for file in files]

    def leave(self) -> None:
        """Take everything away again; the cluster goes too."""

    def kubectl(self, *arguments: str | Path, within: float = 60) -> str:
        """Run kubectl and return its standard output."""
        return self.cluster.kubectl(*arguments, within=within).stdout

    @property
    def scope(self) -> str:
        """The flag that people must type for this namespace."""
        return "" if self.namespace == "default" else f" -n {self.namespace}"


class GuestPlace(Place):
    """A namespace in a cluster that belongs to somebody."""

    def __init__(self, cluster: Cluster, page: Page) -> None:
        super().__init__(cluster, page)
        self.namespace = f"kfp-operator-demo-{secrets.token_hex(3)}"
        self.operator_flags = ["--namespace", self.namespace]
        self.operator_settings = {"KFPOP_LEADERELECTION__NAMESPACE": self.namespace}
        self._installed: list[str] = []
        self._entered = False

    def prepare(self) -> None:
        """Make the namespace, and install the CRDs that are missing.

        Raises:
            DemoError: An operator works in this cluster already: it would take the demo's Runs for its own.

        """
        if other := self._operator():
            raise DemoError(
                f"an operator runs in this cluster already (Lease {other}), and would take part in the demo; "
                "stop it, or run the demo without KUBECONFIG"
            )
        self._entered = True
        self.page.command(f"kubectl create namespace {self.namespace}")
        self.page.output(self.kubectl("create", "namespace", self.namespace))
        for file in sorted((ROOT / "crds").glob("*.yaml")):
            name = yaml.safe_load(file.read_text())["metadata"]["name"]
            if self.kubectl("get", "crd", name, "--ignore-not-found", "-o", "name"):
                self.page.say(f"{name} is there already and stays as it is")
                continue
            self._installed.append(name)
            self.page.command(f"kubectl apply -f crds/{file.name}")
            self.page.output(self.kubectl("apply", "-f", file))
        self.kubectl("wait", "--for=condition=Established", "crd", *_crd_names())

    def manifests(self, folder: Path, *files: str) -> tuple[Sequence[str], Sequence[Path]]:
        """Copies whose Pipelines refer to the Provider of this namespace."""
        shown, originals = super().manifests(folder, *files)
        copies = [folder / "manifests" / file.rstrip("/") for file in files]
        for original, copy in zip(originals, copies, strict=True):
            if original.is_dir():
                for file in original.glob("*.yaml"):
                    self._copy(file, copy / file.name)
            else:
                self._copy(original, copy)
        self.page.say(f"(spec.provider of the Pipelines is {self.namespace}/local here)", "dim")
        return shown, copies

    def _copy(self, original: Path, copy: Path) -> None:
        documents = list(yaml.safe_load_all(original.read_text()))
        for document in documents:
            if document["kind"] == "Pipeline":
                document["spec"]["provider"] = f"{self.namespace}/local"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(yaml.safe_dump_all(documents, sort_keys=False))

    def leave(self) -> None:
        """Delete the demo's objects, its namespace, and the CRDs that it installed if nobody uses them."""
        if not self._entered:
            return
        self.page.say(f"deleting namespace {self.namespace} and what is in it")
        kinds = [kind for kind in _KINDS.split(",") if self._served(kind)]
        for kind in kinds:
            self._delete(kind)
        self.cluster.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", f"--timeout={_DELETE_WITHIN}s", check=False)
        for name in self._installed:
            if self.kubectl("get", name, "-A", "--ignore-not-found", "-o", "name"):
                self.page.say(f"{name} stays: there are objects of this kind in other namespaces")
                continue
            self.kubectl("delete", "crd", name, "--ignore-not-found")

    def _served(self, kind: str) -> bool:
        return self.cluster.kubectl("get", "crd", f"{kind}.kfp-operator.dev", check=False).returncode == 0

    def _delete(self, kind: str) -> None:
        """Delete all of a kind; nobody may be left to take the finalizers off."""
        resource = f"{kind}.kfp-operator.dev"
        asked = self.cluster.kubectl("delete", resource, "--all", "-n", self.namespace, "--timeout=20s", check=False)
        if asked.returncode == 0:
            return
        for name in self.kubectl("get", resource, "-n", self.namespace, "-o", "name").split():
            self.kubectl("patch", name, "-n", self.namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')

    def _operator(self) -> str:
        """The Lease of an operator that was renewed lately, as namespace/name and its holder."""
        listed = self.kubectl("get", "leases", "-A", "--field-selector", "metadata.name=kfp-operator", "-o", "json")
        for lease in json.loads(listed)["items"]:
            spec: dict[str, Any] = lease["spec"]
            renewed = datetime.fromisoformat(spec["renewTime"]) if spec.get("renewTime") else None
            alive = renewed is not None and (datetime.now(UTC) - renewed).total_seconds() < 2 * spec.get("leaseDurationSeconds", 15)
            if spec.get("holderIdentity") and alive:
                return f"{lease['metadata']['namespace']}/kfp-operator of {spec['holderIdentity']}"
        return ""


def choose(kubeconfig: str, page: Page) -> Place:
    """The place for the demo; its cluster is not started yet. Says which cluster was chosen and why."""
    cluster = open_cluster(Path(kubeconfig).expanduser() if kubeconfig else None, progress=Progress(sys.stdout))
    return GuestPlace(cluster, page) if kubeconfig else Place(cluster, page)


def _crd_names() -> list[str]:
    return [yaml.safe_load(file.read_text())["metadata"]["name"] for file in (ROOT / "crds").glob("*.yaml")]
