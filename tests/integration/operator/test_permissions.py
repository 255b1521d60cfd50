"""The permissions of the table are enough for the operator."""

import secrets
from pathlib import Path

import pytest

from kfp_operator.operator.permissions import Scope, permissions, rules
from kfp_operator.operator.resources import Kinds
from tests.cluster import ControlPlane, NatsServer
from tests.integration.operator.harness import API_VERSION, NAMES, Bench, Operator
from tests.waiting import eventually

USER = "operator-by-the-table"
RBAC = "rbac.authorization.k8s.io"


@pytest.fixture
def restricted(control_plane: ControlPlane, namespace: str) -> Path:
    """Kubeconfig of a user who may do in the namespace what the table says, and nothing anywhere else."""
    kubeconfig = control_plane.kubeconfig_for(USER)
    name = f"test-{secrets.token_hex(4)}"
    granted = rules(permission for permission in permissions(Kinds()) if permission.scope is not Scope.CLUSTER)
    control_plane.apply(
        {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": name}, "rules": granted},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
            "subjects": [{"apiGroup": RBAC, "kind": "User", "name": USER}],
        },
        namespace=namespace,
    )
    return kubeconfig


def test_a_role_made_of_the_table_suffices_from_creation_to_expiry(bench: Bench, restricted: Path, nats: NatsServer) -> None:
    lease = {"leaseDuration": 6, "namespace": bench.namespace}
    operator = Operator(restricted, bench.folder, nats=nats.url, namespaces=[bench.namespace], leaderElection=lease)
    bench.operators.append(operator)
    operator.start().wait_ready()
    bench.prepare()
    each = {"apiVersion": API_VERSION, "metadata": {"name": "each"}}
    template = {"pipeline": bench.scenario, "parameters": [{"name": "mode", "value": "succeed"}]}
    bench.apply(
        each | {"kind": "Experiment", "spec": {"provider": f"{bench.namespace}/{bench.backend.name}"}},
        each | {"kind": "RunSchedule", "spec": template | {"schedule": {"cronExpression": "* * * * * *"}, "concurrencyPolicy": "Replace"}},
        each | {"kind": "RunConfiguration", "spec": {"run": template}},
    )
    bench.cluster.kubectl("wait", "-n", bench.namespace, "--for=condition=Ready", "mlexp/each", "mlrs/each", "mlrc/each", "--timeout=60s")
    bench.cluster.kubectl("annotate", "-n", bench.namespace, "mlrc/each", f"{NAMES.start}=now")
    for owner in ("runschedule", "runconfiguration"):
        eventually(
            lambda owner=owner: any(f"{owner}" in "".join(r.metadata.labels) for r in bench.runs().values()), 60, f"a Run of the {owner}"
        )
    bench.cluster.kubectl("delete", "-n", bench.namespace, "mlexp/each", "mlrs/each", "mlrc/each", "--timeout=60s")
    bench.apply(bench.run("good", ttlSecondsAfterFinished=1))
    eventually(lambda: bench.get("good") is None, 60, f"the Run is executed and expires\n{operator.tail()}")
    assert operator.stop() == 0
    log = operator.log.read_text()
    assert "forbidden" not in log.lower()
    assert bench.cluster.kubectl("get", "events", "-n", bench.namespace, "-o", "name").stdout
