"""The main chain on every backend: from kubectl apply to a CloudEvent on NATS and back into status, however a run goes."""

import json
from pathlib import Path
from typing import Any

import pytest

from kfp_operator.api import hashing
from kfp_operator.api.conditions import find
from tests.doubles.kfp_api.outcomes import Outcome
from tests.integration.operator.backends import BACKENDS, KubeflowBackend
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import SCENARIO, Bench
from tests.integration.operator.together import scenario
from tests.integration.operator.verdict import all_ended_well, ended_well
from tests.waiting import eventually

SPEC: dict[str, Any] = SCENARIO["spec"]["pipelineSpec"]
on_every_backend = pytest.mark.parametrize("backend", BACKENDS)


def prepare(bench: Bench) -> None:
    """Provider and Pipeline of each backend."""
    for backend in BACKENDS:
        bench.on(backend).prepare()


def named(bench: Bench, name: str) -> str:
    """A name of this test's own on this backend."""
    return f"{name}-{bench.backend.name}"


def gated(bench: Bench, name: str, **spec: Any) -> tuple[dict[str, Any], Path]:
    """A Run that goes on until the file is made."""
    gate = bench.folder / f"{name}.go"
    return bench.run(name, "wait", parameters={"wait_for": str(gate)}, **spec), gate


def reader(bench: Bench) -> Reader:
    return Reader(bench.nats.url)


# Ends


@on_every_backend
@scenario
def test_a_run_that_succeeds_is_told_once_and_shown_everywhere(bench: Bench, backend: str) -> None:
    name = named(bench, "good")
    bench.apply(bench.run(name))
    run, told = ended_well(bench, name, "succeeded", quiet=False)
    status = run.status
    assert (status.completion_state, status.synchronization_state) == ("Succeeded", "Succeeded")
    assert status.provider == f"{bench.namespace}/{backend}"
    assert status.provider_id
    assert status.pipeline_version == hashing.inline_version({"pipelineSpec": SPEC})
    assert status.start_time is not None
    assert status.end_time is not None
    assert find(status.conditions, "Reconciling") is None
    assert (told["status"], told["runUid"], told["runId"]) == ("succeeded", run.metadata.uid, status.provider_id)
    assert told["pipelineName"] == f"{bench.namespace}/{bench.scenario}"
    states = reader(bench).states(run.metadata.uid)
    assert states[0] in ("queued", "starting", "running")
    copy = next(e for e in reader(bench).events("documented") if e["data"]["runUid"] == run.metadata.uid)
    assert (copy["status"], copy["pipelineName"]) == ("succeeded", f"{bench.namespace}/{bench.scenario}")


@on_every_backend
@pytest.mark.parametrize("mode", ["raise", "exit"])
@scenario
def test_a_run_that_fails_says_which_step_and_why(bench: Bench, backend: str, mode: str) -> None:
    name = named(bench, mode)
    bench.apply(bench.run(name, mode))
    run, told = ended_well(bench, name, "failed", quiet=False)
    assert (run.status.failed_task, told["failedTask"]) == ("act", "act")
    assert bench.backend.failures[mode] in run.status.message
    assert "step act" in run.status.message
    assert (told["artifacts"], told["runId"]) == ([], run.status.provider_id)
    listed = bench.cluster.kubectl("get", "events", "-n", bench.namespace, "--field-selector", f"involvedObject.name={name}", "-o", "json")
    assert any(e["type"] == "Warning" for e in json.loads(listed.stdout)["items"])


@on_every_backend
@scenario
def test_a_run_that_is_cancelled_is_stopped_there_and_told_as_stopped(bench: Bench, backend: str) -> None:
    name = named(bench, "called-off")
    bench.apply(bench.run(name, "hang"))
    bench.wait(name, "running")
    bench.patch("mlr", name, spec={"cancel": True})
    run, told = ended_well(bench, name, "stopped", quiet=False)
    assert (told["status"], told["message"], told["failedTask"]) == ("failed", "stopped by spec.cancel", "")
    assert run.status.provider_id not in bench.backend.active(bench.folder)


@on_every_backend
@scenario
def test_a_run_that_takes_longer_than_it_may_is_stopped_there_and_told_as_failed(bench: Bench, backend: str) -> None:
    name = named(bench, "late")
    bench.apply(bench.run(name, "hang", activeDeadlineSeconds=1))
    run, told = ended_well(bench, name, "failed", quiet=False)
    assert "ran longer than spec.activeDeadlineSeconds (1 s)" in told["message"]
    assert run.status.provider_id not in bench.backend.active(bench.folder)


@on_every_backend
@scenario
def test_a_run_that_can_never_work_fails_with_its_field_before_anything_is_started(bench: Bench, backend: str) -> None:
    name = named(bench, "refused")
    bench.apply(bench.run(name, parameters={"waitfor": "x", "size": "many"}))
    run, told = ended_well(bench, name, "failed", quiet=False)
    for words in ("there is no parameter 'waitfor'", "did you mean 'wait_for'?", "'size' must be a whole number"):
        assert words in told["message"]
    assert (told["runId"], run.status.synchronization_state) == ("", "Failed")
    assert bench.backend.starts(bench.folder)[run.metadata.uid] == 0


@on_every_backend
@scenario
def test_parameters_reach_the_backend_in_the_types_that_the_pipeline_declares(bench: Bench, backend: str) -> None:
    name = named(bench, "typed")
    bench.apply(bench.run(name, parameters={"size": "3"}))
    ended_well(bench, name, "succeeded", quiet=False)


@on_every_backend
@scenario
def test_a_run_waits_for_its_pipeline_and_starts_when_it_appears(bench: Bench, backend: str) -> None:
    name = named(bench, "early")
    bench.apply(bench.run(name, pipeline=name))
    assert f"waits for Pipeline {bench.namespace}/{name}" in bench.wait_reason("mlr", name, "PipelineNotFound")["message"]
    bench.apply(bench.pipeline(name))
    ended_well(bench, name, "succeeded", quiet=False)


# Artifacts


@on_every_backend
@scenario
def test_artifacts_are_chosen_by_their_path_and_filter(bench: Bench, backend: str) -> None:
    name = named(bench, "artifacts")
    declared = {
        "any": "act:model",
        "good": "act:model:0[accuracy == 0.93]",
        "both": "act:model:0[accuracy == 0.93 and pushed == 1]",
        "bad": "act:model:0[accuracy == 0.5]",
    }
    bench.apply(bench.run(name, artifacts=[{"name": key, "path": path} for key, path in declared.items()]))
    run, told = ended_well(bench, name, "succeeded", quiet=False)
    assert [a["name"] for a in told["artifacts"]] == ["any", "good", "both"]
    artifact = told["artifacts"][0]
    assert (artifact["type"], artifact["metadata"]["accuracy"], artifact["metadata"]["pushed"]) == ("system.Model", 0.93, 1)
    assert artifact["location"]
    assert told["artifactsComplete"] is True
    assert [a.name for a in run.status.artifacts] == ["any", "good", "both"]
    assert run.status.artifacts[0].location == artifact["location"]


@on_every_backend
@scenario
def test_an_artifact_that_was_not_produced_is_named(bench: Bench, backend: str) -> None:
    name = named(bench, "missing")
    bench.apply(bench.run(name, artifacts=[{"name": "metrics", "path": "act:metrics"}, {"name": "model", "path": "act:model"}]))
    _, told = ended_well(bench, name, "succeeded", quiet=False)
    assert "spec.artifacts[0].path: the run produced no act:metrics:0; it produced act:model" in told["message"]
    assert [a["name"] for a in told["artifacts"]] == ["model"]


# Edits and deletions


def described(text: str) -> dict[str, Any]:
    """The scenario under another description: another version."""
    return SPEC | {"pipelineInfo": SPEC["pipelineInfo"] | {"description": text}}


@on_every_backend
@scenario
def test_runs_keep_their_version_while_their_pipeline_is_edited(bench: Bench, backend: str) -> None:
    pipeline = named(bench, "edited")

    def edit(text: str) -> str:
        version = hashing.inline_version({"pipelineSpec": described(text)})
        bench.apply(bench.pipeline(pipeline, pipelineSpec=described(text), revisionHistoryLimit=0))
        eventually(lambda: (bench.document("mlp", pipeline) or {}).get("status", {}).get("version") == version, 20, f"{text} is ready")
        return version

    versions = {}
    gate = bench.folder / f"{pipeline}.go"
    for text in ("first", "second"):
        versions[named(bench, text)] = edit(text)
        bench.apply(bench.run(named(bench, text), "wait", parameters={"wait_for": str(gate)}, pipeline=pipeline))
        bench.wait(named(bench, text), "running")
    edit("third")
    gate.touch()
    for name, (run, told) in all_ended_well(bench, dict.fromkeys(versions, "succeeded"), quiet=False).items():
        assert (run.status.pipeline_version, told["pipelineVersion"]) == (versions[name], versions[name])


@pytest.mark.usefixtures("controller_manager")
@on_every_backend
@scenario
def test_a_run_of_a_deleted_pipeline_goes_on_to_its_end(bench: Bench, backend: str) -> None:
    name = named(bench, "survivor")
    bench.apply(bench.pipeline(name))
    document, gate = gated(bench, name, pipeline=name)
    bench.apply(document)
    bench.wait(name, "running")
    bench.delete("mlp", name)
    bench.gone("mlp", name)
    gate.touch()
    ended_well(bench, name, "succeeded", quiet=False)


@on_every_backend
@scenario
def test_runs_deleted_while_running_and_queued_are_stopped_told_and_replaced(bench: Bench, backend: str) -> None:
    lane = named(bench, "narrow")
    first, second = named(bench, "under-way"), named(bench, "in-line")
    slots = {"maxActiveRuns": 1} if backend == "local" else {}
    bench.apply(bench.provider(lane, **slots), bench.pipeline(lane, provider=f"{bench.namespace}/{lane}"))
    if isinstance(bench.backend, KubeflowBackend):  # the server has no queue of its own, but Workflows that wait for a place
        bench.backend.server.outcome(Outcome(by_hand=True), name=f"*{second}*", times=1)
    bench.apply(bench.run(first, "hang", pipeline=lane))
    running = bench.wait(first, "running")
    bench.apply(bench.run(second, "hang", pipeline=lane))
    queued = bench.wait(second, "queued")
    for name in (second, first):
        bench.delete("mlr", name)
        bench.gone("mlr", name)
    states = reader(bench).states(queued.metadata.uid)
    assert (states[0], states[-1], "running" in states) == ("queued", "stopped", False)
    bench.apply(bench.run(first, pipeline=lane), bench.run(second, pipeline=lane))
    again = all_ended_well(bench, dict.fromkeys((first, second), "succeeded"), quiet=False)
    assert {run.metadata.uid for run, _ in again.values()}.isdisjoint({running.metadata.uid, queued.metadata.uid})
    for run in (running, queued):
        (told,) = (d for d in reader(bench).completions() if d["runUid"] == run.metadata.uid)
        assert (told["state"], told["status"], told["runId"]) == ("stopped", "failed", run.status.provider_id)
        assert told["message"] == "stopped because the Run was deleted"
        assert run.status.provider_id not in bench.backend.active(bench.folder)


@on_every_backend
@scenario
def test_an_orphaned_run_goes_on_at_the_backend_and_is_not_told_any_more(bench: Bench, backend: str) -> None:
    name = named(bench, "orphan")
    document, gate = gated(bench, name, deletionPolicy="Orphan")
    bench.apply(document)
    run = bench.wait(name, "running")
    bench.delete("mlr", name)
    bench.gone("mlr", name)
    assert run.status.provider_id in bench.backend.active(bench.folder)
    gate.touch()
    eventually(lambda: run.status.provider_id not in bench.backend.active(bench.folder), 20, "it ends")
    assert not [d for d in reader(bench).completions() if d["runUid"] == run.metadata.uid]


def test_nothing_was_told_twice_and_nothing_was_a_defect(shared: Bench) -> None:
    told, operator = reader(shared), shared.operators[0]
    told.once_each()
    eventually(lambda: told.unsettled() == 0, 90, "the projector has acknowledged everything")
    assert operator.metric("kfp_operator_status_refused_total") == 0
    assert "please report this" not in operator.log.read_text()
