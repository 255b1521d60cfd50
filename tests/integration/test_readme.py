"""Commands of the README whose working depends on the API server."""

import json

from kfp_operator.api.crd import KINDS, crd_yaml
from tests.cluster import Cluster


def test_the_crds_can_be_updated_however_they_were_installed(cluster: Cluster) -> None:
    """As ``kfp-operator crds | kubectl apply --server-side --force-conflicts -f -`` after ``kubectl apply -f crds/`` of another version."""
    group = "readme.example.org"
    older = crd_yaml(group).replace("Immutable.", "Immutable, once.")
    names = [f"crd/{kind.plural}.{group}" for kind in KINDS]
    try:
        cluster.kubectl("apply", "-f", "-", stdin=older)
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=crd_yaml(group))
        for name in names:
            stored = json.loads(cluster.kubectl("get", name, "-o", "json").stdout)
            assert "Immutable, once." not in json.dumps(stored["spec"])
    finally:
        cluster.kubectl("delete", *names, "--ignore-not-found", "--wait=false")
