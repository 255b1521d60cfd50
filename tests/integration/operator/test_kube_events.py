"""Kubernetes Events on a real API server: it accepts them, counts them and shows them to kubectl."""

import json
from collections.abc import Callable
from subprocess import CompletedProcess

from kfp_operator.api.names import Names
from kfp_operator.api.run import Run
from kfp_operator.operator.client import Cluster as Client
from kfp_operator.operator.credentials import load_credentials
from kfp_operator.operator.kube_events import EventRecorder
from kfp_operator.operator.metrics import Metrics
from tests.cluster import Cluster
from tests.waiting import eventually_async

Kubectl = Callable[..., CompletedProcess[str]]


def written(metrics: Metrics, result: str = "written") -> float:
    return metrics.registry.get_sample_value("kfp_operator_kube_events_total", {"result": result}) or 0.0


async def test_kubectl_shows_what_was_told_and_how_often(cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    names, metrics = Names(), Metrics()
    manifest = {"apiVersion": names.api_version, "kind": "Run", "metadata": {"name": "train-1"}, "spec": {"pipeline": "train"}}
    cluster.apply(manifest, namespace=namespace)
    document = cluster.get("runs.kfp-operator.dev", "train-1", namespace)
    assert document is not None
    run = Run.parse(document)
    async with Client(await load_credentials(cluster.kubeconfig)) as client:
        recorder = EventRecorder(client, names, metrics)
        async with recorder.running():
            recorder.warning(run, "Waiting", "Provider mlops/local does not exist")
            recorder.warning(run, "Waiting", "Provider mlops/local does not exist")
            recorder.normal(run, "Started", "running " + "é" * 2000)
            await eventually_async(lambda: written(metrics) == 3, 10, "all is written")
    scope = ("--namespace", namespace, "--for", "runs.kfp-operator.dev/train-1")
    found = json.loads(kubectl("get", "events", "--namespace", namespace, "--output", "json").stdout)["items"]
    assert {event["reason"]: event["count"] for event in found} == {"Waiting": 2, "Started": 1}
    assert "Provider mlops/local does not exist" in kubectl("events", *scope).stdout
    described = kubectl("describe", "runs.kfp-operator.dev", "train-1", "--namespace", namespace).stdout
    assert "Warning  Waiting" in described
    assert "(x2 over" in described
    assert "kfp-operator" in described


async def test_a_namespace_that_is_gone_is_no_error(cluster: Cluster) -> None:
    metrics = Metrics()
    run = Run.parse({"metadata": {"name": "a", "namespace": "never-was", "uid": "u"}, "spec": {"pipeline": "train"}})
    async with Client(await load_credentials(cluster.kubeconfig)) as client:
        recorder = EventRecorder(client, Names(), metrics)
        async with recorder.running():
            recorder.normal(run, "Lost", "x")
    assert (written(metrics), written(metrics, "failed")) == (0, 1)
