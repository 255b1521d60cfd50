"""From kubectl apply to a CloudEvent on NATS and back into status, all parts real."""

import json

from kfp_operator.api.conditions import find
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import NAMES, Bench


def test_a_run_that_succeeds_is_told_once_and_shown_everywhere(bench: Bench, reader: Reader) -> None:
    bench.operator().start().wait_ready()
    bench.prepare()
    bench.apply(bench.run("good"))
    bench.cluster.kubectl("wait", "-n", bench.namespace, "--for=condition=Succeeded", "mlr/good", "--timeout=60s")
    run = bench.released("good")
    status = run.status
    assert (status.state, status.completion_state, status.synchronization_state) == ("succeeded", "Succeeded", "Succeeded")
    assert status.provider == f"{bench.namespace}/local"
    assert status.provider_id
    assert status.pipeline_version
    assert [a.name for a in status.artifacts] == ["model"]
    assert status.artifacts[0].metadata["accuracy"] == 0.93
    assert status.start_time is not None
    assert status.end_time is not None
    assert find(status.conditions, "Reconciling") is None
    assert run.metadata.labels[NAMES.completed] == "succeeded"

    (told,) = reader.completions(f"{bench.namespace}/good")
    assert (told["status"], told["runUid"], told["runId"]) == ("succeeded", run.metadata.uid, status.provider_id)
    assert told["artifacts"][0]["location"] == status.artifacts[0].location
    states = reader.states(run.metadata.uid)
    assert states[0] in ("queued", "starting", "running")
    assert states[-1] == "succeeded"
    assert len(states) == len(set(states))
    (copy,) = reader.events("documented")
    assert copy["data"] == told
    assert (copy["status"], copy["pipelineName"]) == ("succeeded", f"{bench.namespace}/scenario")


def test_a_run_that_fails_says_which_step_and_why(bench: Bench, reader: Reader) -> None:
    bench.operator().start().wait_ready()
    bench.prepare()
    bench.apply(bench.run("bad", "raise"))
    run = bench.wait("bad", "failed")
    assert run.status.failed_task == "act"
    assert "the data has no column island" in run.status.message
    assert bench.cluster.kubectl("wait", "-n", bench.namespace, "--for=condition=Completed", "mlr/bad", "--timeout=1s").returncode == 0
    (told,) = reader.completions(f"{bench.namespace}/bad")
    assert (told["status"], told["failedTask"]) == ("failed", "act")
    events = json.loads(bench.cluster.kubectl("get", "events", "-n", bench.namespace, "-o", "json").stdout)["items"]
    assert any(e["type"] == "Warning" and e["involvedObject"]["name"] == "bad" for e in events)
