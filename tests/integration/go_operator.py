"""What a cluster has in which the Go operator ran: its CRDs, as open as they come, and objects as it left them."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from kfp_operator.api.crd import crd_yaml, crds
from kfp_operator.api.names import GO_GROUP
from tests.cluster import Cluster, ControlPlane, open_cluster
from tests.waiting import eventually

DATA = Path(__file__).parents[1] / "data" / "go_operator"
MANIFESTS = (DATA / "manifests.yaml").read_text()
STATUSES: list[dict[str, Any]] = list(yaml.safe_load_all((DATA / "statuses.yaml").read_text()))


def open_crds() -> list[dict[str, Any]]:
    """CRDs of the same names that take everything: what counts is that they are others than ours."""
    made = crds(GO_GROUP)
    for crd in made:
        version = crd["spec"]["versions"][0]
        version["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        del version["selectableFields"]
    return made


def manifest(kind: str, name: str) -> dict[str, Any]:
    """One of the manifests."""
    found = (document for document in yaml.safe_load_all(MANIFESTS) if document["kind"] == kind)
    return next(document for document in found if document["metadata"].get("name") == name)


def leave_behind(cluster: Cluster, namespace: str) -> None:
    """Make the objects of `STATUSES` as the Go operator leaves them, and the Provider that they name."""
    cluster.kubectl("create", "namespace", "kfp-system")
    provider = {
        "serviceImage": "registry.example.org/provider-kfp:v1",
        "serviceAccount": "kfp-operator-kfp-service-account",
        "pipelineRootStorage": "gs://flowers",
        "executionMode": "none",
        "parameters": {"kfpNamespace": "kubeflow"},
        "frameworks": [{"name": "kfpsdk", "image": "registry.example.org/compiler:v1", "patches": [{"type": "json", "payload": "[]"}]}],
    }
    body = {"apiVersion": f"{GO_GROUP}/v1beta1", "kind": "Provider", "metadata": {"name": "kfp"}, "spec": provider}
    cluster.apply(body, namespace="kfp-system")
    for left in STATUSES:
        body = manifest(left["kind"], left["name"])
        body["metadata"] |= {"finalizers": left["finalizers"], "namespace": namespace}
        cluster.apply(body, namespace=namespace)
        patch = yaml.safe_dump({"status": left["status"]})
        kind = f"{left['kind'].lower()}s.{GO_GROUP}"
        cluster.kubectl("patch", kind, left["name"], "-n", namespace, "--subresource=status", "--type=merge", "--patch", patch)


def own_cluster(cluster: Cluster, crds: Path) -> Cluster:
    """Another cluster than the one that all tests share: kubectl would take short names for those of either group."""
    if not isinstance(cluster, ControlPlane):
        pytest.skip("needs an API server of our own")
    return open_cluster(None, crds=crds)


def namespace_in(cluster: Cluster) -> str:
    """A new namespace."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    return name


@contextmanager
def moved_cluster(cluster: Cluster, folder: Path) -> Iterator[tuple[Cluster, str]]:
    """A cluster in which the Go operator ran and whose CRDs were replaced by ours, and the namespace of its objects."""
    (folder / "all.yaml").write_text(yaml.safe_dump_all(open_crds()))
    with own_cluster(cluster, folder) as made:
        namespace = namespace_in(made)
        leave_behind(made, namespace)
        made.kubectl("apply", "--server-side", "--force-conflicts", "--filename", "-", stdin=crd_yaml(GO_GROUP))

        def enforced(plural: str, name: str) -> bool:
            unknown = ("patch", f"{plural}.{GO_GROUP}", name, "-n", namespace, "--type=merge", "--dry-run=server", "-o", "json", "--patch")
            answer = made.kubectl(*unknown, json.dumps({"spec": {"unknown": 1}}), check=False)
            return answer.returncode == 0 and "unknown" not in json.loads(answer.stdout)["spec"]

        for left in STATUSES:
            plural, name = f"{left['kind'].lower()}s", left["name"]
            eventually(lambda plural=plural, name=name: enforced(plural, name), 30, f"the API server uses the new CRD of {plural}")
        yield made, namespace
