"""What a cluster has in which the Go operator ran: its CRDs, as open as they come, and objects as it left them."""

from pathlib import Path
from typing import Any

import yaml

from kfp_operator.api.crd import crds
from kfp_operator.api.names import GO_GROUP
from tests.cluster import Cluster

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
    """Make the objects of `STATUSES` as the Go operator leaves them."""
    for left in STATUSES:
        body = manifest(left["kind"], left["name"])
        body["metadata"] |= {"finalizers": left["finalizers"], "namespace": namespace}
        cluster.apply(body, namespace=namespace)
        patch = yaml.safe_dump({"status": left["status"]})
        kind = f"{left['kind'].lower()}s.{GO_GROUP}"
        cluster.kubectl("patch", kind, left["name"], "-n", namespace, "--subresource=status", "--type=merge", "--patch", patch)
