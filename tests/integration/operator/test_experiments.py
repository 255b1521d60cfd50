"""Experiments on both backends: where they exist as objects, and where they are a name that runs carry."""

import json
import urllib.request
from typing import Any

import pytest

from tests.integration.operator.backends import BACKENDS, KubeflowBackend
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import API_VERSION, Bench
from tests.integration.operator.together import scenario
from tests.waiting import eventually

on_every_backend = pytest.mark.parametrize("backend", BACKENDS)
on_kubeflow = pytest.mark.parametrize("backend", ["kubeflow"])


def prepare(bench: Bench) -> None:
    """Provider and Pipeline of each backend."""
    for backend in BACKENDS:
        bench.on(backend).prepare()


def experiment(bench: Bench, name: str, **spec: Any) -> dict[str, Any]:
    """An Experiment of this test's own on this backend."""
    given = {"provider": f"{bench.namespace}/{bench.backend.name}"} | spec
    return {"apiVersion": API_VERSION, "kind": "Experiment", "metadata": {"name": name}, "spec": given}


def status(bench: Bench, name: str) -> dict[str, Any]:
    found = bench.document("mlexp", name)
    assert found is not None
    shown: dict[str, Any] = found["status"]
    return shown


def server(bench: Bench) -> KubeflowBackend:
    assert isinstance(bench.backend, KubeflowBackend)
    return bench.backend


def ask(bench: Bench, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the server as anybody may: GET, or POST with a body."""
    url = f"{server(bench).server.url}/apis/v2beta1{path}"
    request = urllib.request.Request(url, data=json.dumps(body).encode() if body else None, headers={"Content-Type": "application/json"})  # noqa: S310  # our own double
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        found: dict[str, Any] = json.loads(answer.read())
    return found


def there(bench: Bench) -> dict[str, dict[str, Any]]:
    """The server's experiments by name."""
    return {e["display_name"]: e for e in ask(bench, "/experiments?page_size=200").get("experiments", [])}


def run_there(bench: Bench, name: str) -> dict[str, Any]:
    run = bench.wait(name, "succeeded")
    return ask(bench, f"/runs/{run.status.provider_id}")


@on_every_backend
@scenario
def test_a_run_applied_with_its_experiment_belongs_to_it(bench: Bench, backend: str) -> None:
    name = f"with-run-{backend}"
    bench.apply(bench.run(name, experimentName=name), experiment(bench, name, description="Which petals"))
    run = bench.wait(name, "succeeded")
    shown = status(bench, name)
    assert (shown["synchronizationState"], shown["provider"]) == ("Succeeded", f"{bench.namespace}/{backend}")
    told = Reader(bench.nats.url).completions(run.metadata.full_name)
    assert [data["experimentName"] for data in told] == [f"{bench.namespace}/{name}"]
    if backend == "kubeflow":
        kept = there(bench)[f"{bench.namespace}/{name}"]
        assert (kept["experiment_id"], kept["description"]) == (shown["providerId"], "Which petals")
        assert run_there(bench, name)["experiment_id"] == shown["providerId"]


@on_kubeflow
@scenario
def test_an_experiment_whose_answers_are_lost_is_made_once(bench: Bench, backend: str) -> None:
    server(bench).server.fault(method="POST", path="/experiments", status=502, effect=True, times=2)
    bench.apply(experiment(bench, "lost"))
    bench.wait_reason("mlexp", "lost", "Succeeded", 60)
    named = [e for e in ask(bench, "/experiments?page_size=200")["experiments"] if e["display_name"] == f"{bench.namespace}/lost"]
    assert [e["experiment_id"] for e in named] == [status(bench, "lost")["providerId"]]


@on_every_backend
@scenario
def test_an_edited_description_takes_no_run_from_the_experiment(bench: Bench, backend: str) -> None:
    name = f"edited-{backend}"
    bench.apply(experiment(bench, name, description="first"))
    bench.wait_reason("mlexp", name, "Succeeded")
    before = status(bench, name)["providerId"]
    bench.patch("mlexp", name, spec={"description": "second"})
    says = "cannot be changed there" if backend == "kubeflow" else ""
    eventually(lambda: status(bench, name)["observedGeneration"] == 2, 30, "the edit is seen")
    bench.wait_reason("mlexp", name, "Succeeded", says=says)
    assert status(bench, name)["providerId"] == before
    if backend == "kubeflow":
        assert there(bench)[f"{bench.namespace}/{name}"]["description"] == "first"


@on_every_backend
@scenario
def test_a_deleted_experiment_is_gone_here_and_there(bench: Bench, backend: str) -> None:
    name = f"deleted-{backend}"
    bench.apply(experiment(bench, name))
    bench.wait_reason("mlexp", name, "Succeeded")
    bench.delete("mlexp", name)
    bench.gone("mlexp", name)
    if backend == "kubeflow":
        assert f"{bench.namespace}/{name}" not in there(bench)


@on_kubeflow
@scenario
def test_a_deletion_tolerates_what_somebody_else_has_deleted(bench: Bench, backend: str) -> None:
    bench.apply(experiment(bench, "twice"))
    bench.wait_reason("mlexp", "twice", "Succeeded")
    url = f"{server(bench).server.url}/apis/v2beta1/experiments/{status(bench, 'twice')['providerId']}"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=10).close()  # noqa: S310  # our own double
    bench.delete("mlexp", "twice")
    bench.gone("mlexp", "twice")


@on_kubeflow
@scenario
def test_an_experiment_that_only_the_server_has_takes_runs_by_its_name(bench: Bench, backend: str) -> None:
    made = ask(bench, "/experiments", {"display_name": "made by hand", "namespace": bench.namespace})
    bench.apply(bench.run("by-hand", experimentName="made by hand"))
    assert run_there(bench, "by-hand")["experiment_id"] == made["experiment_id"]


@on_kubeflow
@scenario
def test_a_run_of_an_experiment_that_nobody_has_waits_for_it(bench: Bench, backend: str) -> None:
    bench.apply(bench.run("early", experimentName="comes-later"))
    bench.wait_reason("mlr", "early", "ExperimentNotFound", 60, says="create Experiment")
    bench.apply(experiment(bench, "comes-later"))
    bench.wait_reason("mlexp", "comes-later", "Succeeded")
    assert run_there(bench, "early")["experiment_id"] == status(bench, "comes-later")["providerId"]


@on_every_backend
@scenario
def test_an_experiment_waits_for_its_provider(bench: Bench, backend: str) -> None:
    name = f"waits-{backend}"
    bench.apply(experiment(bench, name, provider=f"{bench.namespace}/later-{backend}"))
    bench.wait_reason("mlexp", name, "ProviderNotFound", says=f"later-{backend}")
    bench.apply(bench.provider(f"later-{backend}"))
    bench.wait_reason("mlexp", name, "Succeeded", 60)
    if backend == "kubeflow":
        bench.delete("mlprv", f"later-{backend}")
        bench.wait_reason("mlprv", f"later-{backend}", "Deleting", says=f"Experiment {bench.namespace}/{name}")
        bench.delete("mlexp", name)
        bench.gone("mlprv", f"later-{backend}", 60)


@on_every_backend
@scenario
def test_an_experiment_of_another_namespace_must_be_allowed(bench: Bench, backend: str) -> None:
    provider = bench.provider(f"others-{backend}", allowedNamespaces=["others"])
    bench.cluster.apply(provider, namespace=bench.neighbour)
    name = f"forbidden-{backend}"
    bench.apply(experiment(bench, name, provider=f"{bench.neighbour}/others-{backend}"))
    bench.wait_reason("mlexp", name, "ProviderForbidden", 60, says="spec.allowedNamespaces")
