"""The operator in a cluster in which the Go operator ran, under that one's API group: what it says, does, and leaves alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kfp_operator.api.names import GO_FINALIZER, GO_GROUP, Names
from tests.cluster import Cluster, NatsServer
from tests.integration.go_operator import moved_cluster
from tests.integration.operator.harness import SCENARIO, Operator
from tests.waiting import eventually

NAMES = Names(GO_GROUP)


class Site:
    """The cluster, the namespace with what was left, and an operator that has looked at all of it."""

    def __init__(self, cluster: Cluster, namespace: str, operator: Operator) -> None:
        self.cluster, self.namespace, self.operator = cluster, namespace, operator

    def apply(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        self.cluster.apply(
            {"apiVersion": NAMES.api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}, namespace=self.namespace
        )

    def get(self, plural: str, name: str) -> dict[str, Any] | None:
        return self.cluster.get(f"{plural}.{GO_GROUP}", name, self.namespace)

    def ready(self, plural: str, name: str) -> dict[str, Any]:
        """Condition Ready, once it is there."""

        def there() -> dict[str, Any] | None:
            conditions = (self.get(plural, name) or {}).get("status", {}).get("conditions", [])
            return next((c for c in conditions if c["type"] == "Ready"), None)

        return eventually(there, 60, f"{plural} {name} is Ready or not\n{self.operator.tail()}")

    def says(self, plural: str, name: str, reason: str) -> str:
        """The message of condition Ready, once it has the reason."""
        eventually(lambda: self.ready(plural, name)["reason"] == reason, 60, f"{plural} {name} says {reason}\n{self.operator.tail()}")
        return str(self.ready(plural, name)["message"])

    def delete(self, plural: str, name: str) -> None:
        self.cluster.kubectl("delete", f"{plural}.{GO_GROUP}", name, "-n", self.namespace, "--timeout=60s")

    def events(self, name: str) -> list[str]:
        """Reasons of Kubernetes Events about objects of that name."""
        selector = f"involvedObject.name={name}"
        found = json.loads(self.cluster.kubectl("get", "events", "-n", self.namespace, "--field-selector", selector, "-o", "json").stdout)
        return [item["reason"] for item in found["items"]]


@pytest.fixture(scope="module")
def site(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("takeover")
    with moved_cluster(cluster, folder) as (made, namespace), NatsServer() as nats:
        operator = Operator(
            made.kubeconfig, folder, nats=nats.url, apiGroup=GO_GROUP, leaderElection={"leaseDuration": 6, "namespace": namespace}
        )
        with operator:
            operator.wait_ready()
            there = Site(made, namespace, operator)
            provider = {"type": "local", "pipelineRootStorage": "", "allowedNamespaces": [namespace]}
            made.apply(
                {"apiVersion": NAMES.api_version, "kind": "Provider", "metadata": {"name": "kfp"}, "spec": provider}, namespace="kfp-system"
            )
            yield there


def test_a_pipeline_built_in_an_image_says_that_it_cannot_be_compiled_and_what_to_do(site: Site) -> None:
    for name in ("iris", "iris-tfx"):
        assert "kfp-operator pipelines build" in site.says("pipelines", name, "CompileNotSupported")
    stored = site.get("pipelines", "iris")
    assert stored is not None
    assert stored["status"]["version"] == "0cf383", "that of the Go operator stays"


def test_a_run_of_it_waits_and_says_so(site: Site) -> None:
    site.apply("Run", "of-image", {"pipeline": "iris"})
    assert "kfp-operator pipelines build" in site.says("runs", "of-image", "PipelineNotReady")
    site.delete("runs", "of-image")


def test_an_ended_run_is_left_as_it_is(site: Site) -> None:
    stored = site.get("runs", "iris-full")
    assert stored is not None
    assert stored["metadata"]["finalizers"] == [GO_FINALIZER]
    assert stored["status"]["completionState"] == "Succeeded"
    assert "synchronizationState" not in stored["status"]


def test_an_experiment_is_taken_over_with_its_version(site: Site) -> None:
    site.says("experiments", "flowers", "Succeeded")
    stored = site.get("experiments", "flowers")
    assert stored is not None
    assert (stored["status"]["provider"], stored["status"]["providerId"]) == ("kfp-system/kfp", "flowers")


def test_nothing_is_started_by_taking_over(site: Site) -> None:
    for name in ("iris-nightly", "iris-bare"):
        site.ready("runconfigurations", name)
    site.ready("runschedules", "iris-hourly")
    runs = json.loads(site.cluster.kubectl("get", f"runs.{GO_GROUP}", "-n", site.namespace, "-o", "json").stdout)["items"]
    by_change = [r for r in runs if r["metadata"].get("labels", {}).get(NAMES.trigger_type, "schedule") != "schedule"]
    assert by_change == []
    eventually(lambda: "ScheduledElsewhere" in site.events("iris-hourly"), 30, "the schedule at the backend is named")


def test_the_api_server_refuses_no_write_to_what_was_left(site: Site) -> None:
    for plural in ("pipelines", "experiments", "runs", "runconfigurations", "runschedules"):
        assert site.operator.metric("kfp_operator_api_requests_total", code="422", resource=plural, verb="patch") == 0
    assert site.operator.metric("kfp_operator_status_refused_total") == 0


def test_a_compiled_pipeline_in_its_place_is_synchronized_and_its_runs_start(site: Site) -> None:
    """An edit from image to pipelineSpec: the remedy that the condition names."""
    patch = {
        "spec": {"image": None, "framework": None, "env": None, "pipelineSpec": SCENARIO["spec"]["pipelineSpec"]},
    }
    site.cluster.kubectl("patch", f"pipelines.{GO_GROUP}", "iris", "-n", site.namespace, "--type=merge", "--patch", json.dumps(patch))
    site.says("pipelines", "iris", "Succeeded")
    site.apply("Run", "after", {"pipeline": "iris", "experimentName": "flowers", "parameters": [{"name": "mode", "value": "succeed"}]})
    site.says("runs", "after", "Succeeded")


@pytest.mark.parametrize(
    ("plural", "name"), [("runs", "iris-full"), ("experiments", "flowers"), ("runschedules", "iris-hourly"), ("pipelines", "iris-tfx")]
)
def test_what_the_go_operator_holds_can_be_deleted(site: Site, plural: str, name: str) -> None:
    site.delete(plural, name)
    assert site.get(plural, name) is None
