"""Kubeflow Pipelines beside others: their runs are told without Run objects, and a Provider may be edited to another server."""

import http.client
import json
from collections import Counter
from contextlib import closing
from typing import Any

import pytest

from tests.doubles.kfp_api.process import KfpApiProcess
from tests.integration.operator.backends import KubeflowBackend
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import SCENARIO, Bench
from tests.integration.operator.together import scenario
from tests.integration.operator.verdict import all_ended_well, starts
from tests.waiting import eventually

KUBEFLOW = pytest.mark.parametrize("backend", ["kubeflow"])


def server(bench: Bench) -> KfpApiProcess:
    assert isinstance(bench.backend, KubeflowBackend)
    return bench.backend.server


def parameters(bench: Bench, **changes: Any) -> dict[str, Any]:
    """Those of the bench's Provider, with these changed."""
    return {"parameters": bench.backend.spec()["parameters"] | changes}


def start(bench: Bench, run_id: str, mode: str = "succeed") -> None:
    """Somebody starts a run with the SDK."""
    body = {
        "run_id": run_id,
        "display_name": f"by hand {run_id}",
        "pipeline_spec": SCENARIO["spec"]["pipelineSpec"],
        "runtime_config": {"parameters": {"mode": mode}},
    }
    connection = http.client.HTTPConnection(server(bench).url.removeprefix("http://"), timeout=10)
    with closing(connection):
        connection.request("POST", "/apis/v2beta1/runs", json.dumps(body), {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200


def ended(bench: Bench, run_id: str) -> bool:
    return server(bench).runs()[run_id]["state"] in ("SUCCEEDED", "FAILED")


def observed(bench: Bench) -> list[dict[str, Any]]:
    """Data of completions without a Run."""
    return [data for data in Reader(bench.nats.url).completions() if not data["runUid"]]


@KUBEFLOW
@pytest.mark.parametrize("fault", ["", "observed", "observed:3"])
@scenario
def test_the_ends_of_others_runs_are_told_once_each_though_the_operator_is_killed(bench: Bench, backend: str, fault: str) -> None:
    start(bench, "before")
    eventually(lambda: ended(bench, "before"), 20, "it has ended")
    operator = bench.operator(leaderElection={"enabled": False}, fault=fault).start()
    bench.prepare(**parameters(bench, observe="All", observedArtifacts=[{"name": "model", "path": "act:model"}]))
    eventually(lambda: _until(bench), 20, "it observes")
    bench.apply(bench.run("ours"))
    for number in range(5):
        start(bench, f"r{number}", "raise" if number == 3 else "succeed")
    if fault:
        operator.wait_end(60)
    else:
        eventually(lambda: len(observed(bench)) == 5, 30, f"all are told\n{operator.tail()}")
        operator.kill()
    start(bench, "while-away")
    eventually(lambda: ended(bench, "while-away"), 20, "it has ended")
    operator.restart()
    eventually(lambda: len(observed(bench)) == 6, 60, f"all are told\n{operator.tail()}")
    all_ended_well(bench, {"ours": "succeeded"})
    reader = Reader(bench.nats.url)
    eventually(lambda: reader.unsettled() == 0, 20, "the projector has taken note")
    events = [event for event in reader.events() if not event["data"]["runUid"]]
    assert Counter(event["id"] for event in events) == Counter(
        f"{name}.1.completion" for name in (*(f"r{n}" for n in range(5)), "while-away")
    )
    copies = Counter(event["id"] for event in reader.events("documented") if not event["data"]["runUid"])
    assert copies == Counter(event["id"] for event in events)
    told = {data["runId"]: data for data in observed(bench)}
    assert {run_id: data["status"] for run_id, data in told.items() if data["status"] == "failed"} == {"r3": "failed"}
    assert [artifact["name"] for artifact in told["r0"]["artifacts"]] == ["model"]
    assert (told["r0"]["pipelineName"], told["r0"]["provider"]) == ("scenario", f"{bench.namespace}/kubeflow")
    assert told["r3"]["failedTask"] == "act"


def _until(bench: Bench) -> str:
    provider = bench.document("mlprv", "kubeflow") or {}
    return str(provider.get("status", {}).get("observedUntil", ""))


@KUBEFLOW
@scenario
def test_a_provider_that_is_edited_to_another_server_loses_no_run_and_starts_none_twice(bench: Bench, backend: str) -> None:
    bench.operator().start().wait_ready()
    bench.prepare()
    gate = bench.folder / "go"
    bench.apply(bench.run("it", "wait", parameters={"wait_for": str(gate)}))
    bench.wait("it", "running")
    folder = bench.folder / "another"
    folder.mkdir()
    assert isinstance(bench.backend, KubeflowBackend)
    with KfpApiProcess(folder, namespace=bench.namespace, recorder=bench.backend.mlmd.recorder) as another:
        old = server(bench).url
        bench.patch("mlprv", "kubeflow", spec=parameters(bench, endpoint=another.url))
        said = f"was changed from {old} {bench.namespace} to {another.url} {bench.namespace}, which does not know the run"
        eventually(lambda: said in _message(bench, "it"), 60, f"the Run says so: {bench.operators[0].tail()}")
        bench.apply(bench.run("other"))
        bench.wait("other", "succeeded")
        gate.touch()
        bench.patch("mlprv", "kubeflow", spec=parameters(bench, endpoint=old))
        all_ended_well(bench, {"it": "succeeded"})
        assert len(another.runs()) == 1
    assert list(starts(bench).values()) == [1]


def _message(bench: Bench, name: str) -> str:
    run = bench.get(name)
    return run.status.message if run is not None else ""


@KUBEFLOW
@scenario
def test_a_run_that_is_deleted_at_the_server_says_so_and_is_looked_for(bench: Bench, backend: str) -> None:
    operator = bench.operator().start().wait_ready()
    bench.prepare()
    bench.apply(bench.run("it", "wait", parameters={"wait_for": "/nonexistent"}))
    run = bench.wait("it", "running")
    server(bench).delete_run(run.status.provider_id)
    asked = server(bench).requests()["GET", "/runs/{id}"]
    eventually(lambda: server(bench).requests()["GET", "/runs/{id}"] > asked + 1, 60, f"it is looked for\n{operator.tail()}")
    assert server(bench).requests()["POST", "/runs"] == 1
